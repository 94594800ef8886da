"""The stand-in for KubeVirt's virt-handler: the part of a node in a VirtualMachineInstance's life.

On a real node virt-handler talks to the launcher's libvirt and reports what it hears. Here nothing runs on the
nodes, so it reports at once what would be heard of a guest: that a Scheduled instance, whose launcher pod
virt-controller has found ready, runs; that a deleted one has shut down; and how one ended whose launcher pod has
ended by itself. One process speaks for all nodes, each for as long as it is Ready, and gives their signs of life.
It adds to the status and takes nothing away but what it wrote: the rest is virt-controller's.

virt-api has it pause a guest (`handler_server`). That is kept nowhere but in the instance's condition, so nothing is
lost with the process.
"""

import asyncio
import logging
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path

from clusters.kubevirt.controller.events import Note, Recorder
from clusters.kubevirt.controller.heartbeat import INTERVAL, beat, is_due, is_ready, silence
from clusters.kubevirt.controller.workqueue import WorkQueue
from clusters.kubevirt.handler_server import NodeUnreachableError, create_app, handler_server
from clusters.kubevirt.objects import (
    LAUNCHERS,
    condition,
    controller_of,
    format_time,
    is_deleting,
    key_of,
    make_condition,
    now,
    phase_of,
    set_phase,
    with_condition,
    without_condition,
)
from virtflow.kube import Informer, Key, KubeClient, KubeError, Object
from virtflow.kube.resources import NODES, PODS, VMIS

__all__ = ["Handler", "pause", "report", "run_handler", "unpause", "write_change"]

log = logging.getLogger(__name__)

COMPONENT = "virt-handler"
ENDED = "status.phase!=Pending,status.phase!=Running"


ATTEMPTS = 5
"""To write what virt-api has asked for, while others write the same instance."""

Change = Callable[[Object, datetime], Object | None]
"""The VMI as it should be at that moment, None if it is so already."""


async def run_handler(kubeconfig: Path, port: int, tls_cert: Path, tls_key: Path, client_ca: Path) -> None:
    """Be virt-handler on every node, until cancelled, with the identity of a kubeconfig.

    virt-api, known by a certificate of `client_ca`, is served on 127.0.0.1:`port`.
    """
    async with await KubeClient.connect(kubeconfig, agent="virt-handler") as kube:
        handler = Handler(kube)
        app = create_app(
            {
                "pause": lambda key: write_change(kube, key, pause, handler.speaks_for),
                "unpause": lambda key: write_change(kube, key, unpause, handler.speaks_for),
            }
        )
        server = handler_server(app, port, tls_cert, tls_key, client_ca)
        async with asyncio.TaskGroup() as group:
            group.create_task(handler.run())
            group.create_task(server.serve())


async def write_change(kube: KubeClient, key: Key, change: Change, speaks_for: Callable[[str], bool]) -> bool:
    """Write a change of the instance that is there; False if there is none.

    Raises KubeError, and `NodeUnreachableError` if its node, which would have to make the change, does not answer.
    """
    namespace, name = key
    for left in reversed(range(ATTEMPTS)):
        try:
            vmi = await kube.get(VMIS, name, namespace)
            if not speaks_for(node_name(vmi)):
                raise NodeUnreachableError(
                    f"the node {node_name(vmi)!r} of VirtualMachineInstance {namespace}/{name} is gone or not Ready, "
                    "so nobody can be asked to change the guest: try again when it is Ready"
                )
            if new := change(vmi, now()):
                await kube.replace(VMIS, new)
            break
        except KubeError as error:
            if error.code == 404:
                return False
            if error.code != 409 or not left:
                raise
    return True


class Handler:
    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._nodes = Informer(kube, NODES)
        self._ended = Informer(kube, PODS, selector=LAUNCHERS, fields=ENDED)
        self._instances = Informer(kube, VMIS)
        self._ends: dict[str, Object] = {}
        self._recorder = Recorder(kube, COMPONENT)
        self._queue = WorkQueue(VMIS.kind, self._reconcile)
        self._beats = WorkQueue(NODES.kind, self._beat)
        self._nodes.listen(self._node_changed)
        self._ended.listen(self._pod_ended)
        self._instances.listen(self._changed)

    async def run(self) -> None:
        async with (
            self._nodes.running(),
            self._ended.running(),
            self._instances.running(),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._recorder.run())
            group.create_task(self._beats.run())
            group.create_task(self._queue.run())

    def speaks_for(self, node: str) -> bool:
        """Whether a virt-handler would be at work on this node: on one that is not Ready nobody hears of it."""
        return is_ready(self._nodes.get("", node))

    def _changed(self, _: Object | None, new: Object | None) -> None:
        if new is not None:
            self._queue.add(key_of(new))

    def _pod_ended(self, old: Object | None, new: Object | None) -> None:
        """Keep the ended pods by the uid of their instance."""
        if (pod := new or old) is None or (owner := controller_of(pod)) is None:
            return
        if new is None:
            self._ends.pop(owner["uid"], None)
        else:
            self._ends[owner["uid"]] = new
            self._queue.add((pod["metadata"]["namespace"], owner["name"]))

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        self._beats.add(key_of(new))
        if is_ready(new) and not is_ready(old):
            for vmi in self._instances.items():
                if node_name(vmi) == new["metadata"]["name"]:
                    self._queue.add(key_of(vmi))

    async def _beat(self, key: Key) -> timedelta | None:
        node, moment = self._nodes.get(*key), now()
        if node is None or not is_ready(node):
            return None
        if is_due(node, moment):
            node = await self._kube.patch(NODES, key[1], beat(moment), kind="strategic")
            self._nodes.observe(node)
        return INTERVAL - (silence(node, moment) or timedelta(0))

    async def _reconcile(self, key: Key) -> None:
        vmi = self._instances.get(*key)
        if vmi is None or not self.speaks_for(node_name(vmi)):
            return
        ended = self._ends.get(vmi["metadata"]["uid"])
        if new := report(vmi, now(), ended):
            self._instances.observe(await self._kube.replace(VMIS, new))
            log.info("VirtualMachineInstance %s is %s", "/".join(key), phase_of(new))
            if ended is not None and not is_deleting(vmi):
                self._recorder.record(end_note(new))


def node_name(vmi: Object) -> str:
    name: str = vmi.get("status", {}).get("nodeName", "")
    return name


def report(vmi: Object, moment: datetime, ended: Object | None = None) -> Object | None:
    """The VMI with what its node has to say, None if that is nothing new. `ended`: its launcher pod, once it has."""
    phase = phase_of(vmi)
    if phase not in ("Scheduled", "Running") or not node_name(vmi):
        return None
    new = deepcopy(vmi)
    if is_deleting(vmi):
        set_phase(new["status"], "Succeeded", moment)
        return new
    if ended is not None:
        set_phase(new["status"], "Succeeded" if ended["status"]["phase"] == "Succeeded" else "Failed", moment)
        return new
    if phase == "Running":
        return None
    ready = {
        "type": "Ready",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": format_time(moment),
    }
    new["status"]["conditions"] = with_condition(new["status"].get("conditions", []), ready)
    set_phase(new["status"], "Running", moment)
    starts_paused = vmi["spec"].get("startStrategy") == "Paused"
    return (pause(new, moment) if starts_paused else None) or new


def end_note(vmi: Object) -> Note:
    if phase_of(vmi) == "Succeeded":
        return Note(vmi, "Normal", "Stopped", "The VirtualMachineInstance was shut down.")
    return Note(vmi, "Warning", "Stopped", "The VirtualMachineInstance crashed.")


def pause(vmi: Object, moment: datetime) -> Object | None:
    """The VMI as its node reports it once the guest is paused, None if it is."""
    if condition(vmi, "Paused") is not None:
        return None
    new = deepcopy(vmi)
    paused = make_condition("Paused", "True", "PausedByUser", "VMI was paused by user", moment)
    new["status"]["conditions"] = with_condition(new["status"].get("conditions", []), paused)
    return new


def unpause(vmi: Object, _: datetime) -> Object | None:
    """The VMI as its node reports it once the guest goes on, None if it does."""
    if condition(vmi, "Paused") is None:
        return None
    new = deepcopy(vmi)
    new["status"]["conditions"] = without_condition(new["status"]["conditions"], "Paused")
    return new
