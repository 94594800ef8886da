"""Nodes that fail and are mended, launcher pods that are killed, and machines that come back from either."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity

from activities.errors import gave_up, refusals_are_final
from activities.heartbeat import heartbeating
from activities.outages import impossible_is_final
from clusters.faults import NOT_READY, check_node, is_played
from virtflow.kube import Informer, KubeClient, KubeError, Object
from virtflow.kube.resources import NODES, PODS, VMIS
from workflows.failures import FailureType, failure
from workflows.fault_models import Instance, LauncherKill, NodeFault
from workflows.models import VirtualMachineRef

__all__ = ["Faults"]

NODE_LIMIT = timedelta(seconds=60)
"""A node says by itself that it has failed. That it is well again kube-controller-manager must notice, which looks
every five seconds and then takes the taints from it."""


class Faults:
    """Acts as the platform's administrator."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    @activity.defn
    async def read_instance(self, machine: VirtualMachineRef) -> Instance:
        """The machine's present life. Raises if it has none: nothing that does not run can be made to fail."""
        with refusals_are_final():
            vmi = await self._kube.get(VMIS, machine.name, machine.namespace)
        return Instance(vmi["metadata"]["uid"], vmi.get("status", {}).get("nodeName", ""))

    @activity.defn
    async def fail_node(self, fault: NodeFault) -> None:
        """Make a node fail, and wait until it says so. Where another's fault is on it, wait for its end first."""
        async with heartbeating(), self._node(fault.node) as informer:
            node = await self._until(informer, fault, lambda node: mark_of(node) in ("", fault.mark), "to be mended")
            if mark_of(node) != fault.mark:
                await self._annotate(informer, node, fault.mark)
            await self._until(informer, fault, lambda node: ready_of(node) == "False", "to say that it has failed")

    @activity.defn
    async def mend_node(self, fault: NodeFault) -> None:
        """End this fault, and wait until the node is well and takes pods. Where there is none it is well already."""
        async with heartbeating(), self._node(fault.node) as informer:
            node = informer.get("", fault.node)
            if node is None or not is_played(node) or mark_of(node) not in ("", fault.mark):
                return
            if mark_of(node):
                await self._annotate(informer, node, None)
            await self._until(informer, fault, is_well, "to be well again")

    @activity.defn
    async def kill_launcher(self, kill: LauncherKill) -> None:
        """Delete the pod with all but no time for the guest to take leave. A retry may find that done."""
        with refusals_are_final():
            pods = await self._kube.list(PODS, kill.machine.namespace, selector="kubevirt.io=virt-launcher")
            own = [pod["metadata"] for pod in pods if kill.instance.uid in owners_of(pod)]
            if not own and activity.info().attempt == 1:
                raise failure(
                    FailureType.REFUSED,
                    f"{kill.machine.namespace}/{kill.machine.name} has no launcher pod that could be killed.",
                )
            for meta in own:
                # Not 0 seconds: that would not wait for the node's word that the guest has ended.
                await self._kube.delete(PODS, meta["name"], kill.machine.namespace, uid=meta["uid"], grace_seconds=1)

    @asynccontextmanager
    async def _node(self, name: str) -> AsyncIterator[Informer]:
        # Of this one node and only now: nothing else here asks for nodes, which change every few seconds.
        informer = Informer(self._kube, NODES, fields=f"metadata.name={name}")
        async with informer.running():
            yield informer

    async def _until(
        self, informer: Informer, fault: NodeFault, holds: Callable[[Object], bool], what: str
    ) -> Object:
        if informer.get("", fault.node) is None:
            with refusals_are_final():
                names = [node["metadata"]["name"] for node in await self._kube.list(NODES)]
            known = ", ".join(names) or "none"
            raise failure(FailureType.REFUSED, f"There is no node {fault.node}. There are: {known}.")
        with impossible_is_final():
            check_node(informer.get("", fault.node) or {})
        try:
            async with asyncio.timeout(NODE_LIMIT.total_seconds()):
                node = await informer.wait_for("", fault.node, lambda node: node is None or holds(node))
        except TimeoutError:
            raise gave_up(
                f"Node {fault.node} took longer than {NODE_LIMIT.total_seconds():.0f} s {what}: "
                f"{what_it_says(informer.get('', fault.node) or {})}."
            ) from None
        if node is None:
            raise failure(FailureType.REFUSED, f"Node {fault.node} is gone: somebody has deleted it meanwhile.")
        return node

    async def _annotate(self, informer: Informer, node: Object, mark: str | None) -> None:
        """On condition that nobody else has written it since: a conflict is tried again by the activity's policy."""
        meta = node["metadata"]
        patch = {"resourceVersion": meta["resourceVersion"], "annotations": {NOT_READY: mark}}
        with refusals_are_final():
            try:
                informer.observe(await self._kube.patch(NODES, meta["name"], {"metadata": patch}))
            except KubeError as error:
                if error.code != 404:
                    raise


def mark_of(node: Object) -> str:
    """Whose fault is on a node; empty if it has none."""
    mark: str = node["metadata"].get("annotations", {}).get(NOT_READY, "")
    return mark


def ready_of(node: Object) -> str:
    conditions = node.get("status", {}).get("conditions", [])
    return next((condition["status"] for condition in conditions if condition["type"] == "Ready"), "Unknown")


def is_well(node: Object) -> bool:
    return ready_of(node) == "True" and not node["spec"].get("taints")


def what_it_says(node: Object) -> str:
    taints = [f"{taint['key']}:{taint['effect']}" for taint in node.get("spec", {}).get("taints", [])]
    return f"Ready={ready_of(node)}, its taints are {', '.join(taints) or 'none'}"


def owners_of(obj: Object) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences", [])}
