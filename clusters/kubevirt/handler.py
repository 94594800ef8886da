"""The stand-in for KubeVirt's virt-handler: the part of a node in a VirtualMachineInstance's life.

On a real node virt-handler talks to the launcher's libvirt and reports what it hears. Here nothing runs on the
nodes, so it reports at once what would be heard of a guest without a fault: that a Scheduled instance, whose
launcher pod virt-controller has found ready, runs, and that a deleted one has shut down. One process speaks for
all nodes. It adds to the status and takes nothing away but what it wrote: the rest is virt-controller's.

virt-api has it pause a guest (`handler_server`). That is kept nowhere but in the instance's condition, so nothing is
lost with the process.
"""

import asyncio
import logging
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from pathlib import Path

from clusters.kubevirt.controller.objects import (
    condition,
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
from clusters.kubevirt.controller.workqueue import WorkQueue
from clusters.kubevirt.handler_server import create_app, handler_server
from virtflow.kube import Informer, Key, KubeClient, KubeError, Object
from virtflow.kube.resources import VMIS

__all__ = ["Handler", "pause", "report", "run_handler", "unpause", "write_change"]

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""To write what virt-api has asked for, while others write the same instance."""

Change = Callable[[Object, datetime], Object | None]
"""The VMI as it should be at that moment, None if it is so already."""


async def run_handler(kubeconfig: Path, port: int, tls_cert: Path, tls_key: Path, client_ca: Path) -> None:
    """Be virt-handler on every node, until cancelled, with the identity of a kubeconfig.

    virt-api, known by a certificate of `client_ca`, is served on 127.0.0.1:`port`.
    """
    async with await KubeClient.connect(kubeconfig, agent="virt-handler") as kube:
        app = create_app(
            {
                "pause": lambda key: write_change(kube, key, pause),
                "unpause": lambda key: write_change(kube, key, unpause),
            }
        )
        server = handler_server(app, port, tls_cert, tls_key, client_ca)
        async with asyncio.TaskGroup() as group:
            group.create_task(Handler(kube).run())
            group.create_task(server.serve())


async def write_change(kube: KubeClient, key: Key, change: Change) -> bool:
    """Write a change of the instance that is there; False if there is none. Raises KubeError."""
    namespace, name = key
    for left in reversed(range(ATTEMPTS)):
        try:
            if new := change(await kube.get(VMIS, name, namespace), now()):
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
        self._instances = Informer(kube, VMIS)
        self._queue = WorkQueue(VMIS.kind, self._reconcile)
        self._instances.listen(self._changed)

    async def run(self) -> None:
        async with self._instances.running():
            await self._queue.run()

    def _changed(self, _: Object | None, new: Object | None) -> None:
        if new is not None:
            self._queue.add(key_of(new))

    async def _reconcile(self, key: Key) -> None:
        vmi = self._instances.get(*key)
        if vmi is not None and (new := report(vmi, now())):
            self._instances.observe(await self._kube.replace(VMIS, new))
            log.info("VirtualMachineInstance %s is %s", "/".join(key), phase_of(new))


def report(vmi: Object, moment: datetime) -> Object | None:
    """The VMI with what its node has to say, None if there is nothing new."""
    phase = phase_of(vmi)
    if phase not in ("Scheduled", "Running") or not vmi["status"].get("nodeName"):
        return None
    if is_deleting(vmi):
        new = deepcopy(vmi)
        set_phase(new["status"], "Succeeded", moment)
        return new
    if phase == "Running":
        return None
    new = deepcopy(vmi)
    ready = {
        "type": "Ready",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": format_time(moment),
    }
    new["status"]["conditions"] = with_condition(new["status"].get("conditions", []), ready)
    set_phase(new["status"], "Running", moment)
    return new


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
