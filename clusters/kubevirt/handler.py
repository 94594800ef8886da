"""The stand-in for KubeVirt's virt-handler: the part of a node in a VirtualMachineInstance's life.

On a real node virt-handler talks to the launcher's libvirt and reports what it hears. Here nothing runs on the
nodes, so it reports at once what would be heard of a guest without a fault: that a Scheduled instance, whose
launcher pod virt-controller has found ready, runs, and that a deleted one has shut down. One process speaks for
all nodes. It adds to the status and takes nothing away: the rest is virt-controller's.
"""

import logging
from copy import deepcopy
from datetime import datetime
from pathlib import Path

from clusters.kubevirt.controller.objects import (
    format_time,
    is_deleting,
    key_of,
    now,
    phase_of,
    set_phase,
    with_condition,
)
from clusters.kubevirt.controller.workqueue import WorkQueue
from virtflow.kube import Informer, Key, KubeClient, Object
from virtflow.kube.resources import VMIS

__all__ = ["Handler", "report", "run_handler"]

log = logging.getLogger(__name__)


async def run_handler(kubeconfig: Path) -> None:
    """Be virt-handler on every node, until cancelled, with the identity of a kubeconfig."""
    async with await KubeClient.connect(kubeconfig, agent="virt-handler") as kube:
        await Handler(kube).run()


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
