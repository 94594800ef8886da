"""The process: informers feed the queues, the queues call the reconcilers, and nothing is listed again.

It uses the API alone and keeps nothing of its own, so it may be killed at any moment, and KubeVirt's own
virt-controller may take its place.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from clusters.kubevirt.controller import node, vm, vmi, vmirs
from clusters.kubevirt.controller.events import Recorder
from clusters.kubevirt.controller.objects import controller_of, key_of, now
from clusters.kubevirt.controller.run_strategy import backoff
from clusters.kubevirt.controller.workqueue import WorkQueue, is_lost_race
from clusters.kubevirt.controller.writes import Create, Write, Writer
from virtflow.kube import Informer, Key, KubeClient, KubeError, Object, Resource
from virtflow.kube.resources import CONTROLLER_REVISIONS, NODES, PODS, VMIRS, VMIS, VMS

__all__ = ["Controller", "run_controller"]

COMPONENT = "virtualmachine-controller"


async def run_controller(kubeconfig: Path) -> None:
    """Be virt-controller, until cancelled, with the identity of a kubeconfig."""
    async with await KubeClient.connect(kubeconfig, agent="virt-controller") as kube:
        await Controller(kube).run()


class Owned:
    """The objects of an informer by the uid of the owner that manages them."""

    def __init__(self, informer: Informer) -> None:
        self._by_owner: defaultdict[str, dict[str, Object]] = defaultdict(dict)
        informer.listen(self._changed)

    def of(self, owner: Object) -> list[Object]:
        return list(self._by_owner.get(owner["metadata"]["uid"], {}).values())

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (owner := controller_of(old)):
            owned = self._by_owner[owner["uid"]]
            owned.pop(old["metadata"]["uid"], None)
            if not owned:
                del self._by_owner[owner["uid"]]
        if new is not None and (owner := controller_of(new)):
            self._by_owner[owner["uid"]][new["metadata"]["uid"]] = new


class Controller:
    """The reconcilers around one set of caches."""

    def __init__(self, kube: KubeClient) -> None:
        self._informers: dict[Resource, Informer] = {
            VMS: Informer(kube, VMS),
            VMIS: Informer(kube, VMIS),
            VMIRS: Informer(kube, VMIRS),
            PODS: Informer(kube, PODS, selector="kubevirt.io=virt-launcher"),
            CONTROLLER_REVISIONS: Informer(kube, CONTROLLER_REVISIONS),
            NODES: Informer(kube, NODES),
        }
        self._recorder = Recorder(kube, COMPONENT)
        self._writer = Writer(kube, self._informers, self._recorder)
        self._queues = {
            VMS.kind: WorkQueue(VMS.kind, self._reconcile_vm),
            VMIS.kind: WorkQueue(VMIS.kind, self._reconcile_vmi),
            VMIRS.kind: WorkQueue(VMIRS.kind, self._reconcile_vmirs),
            NODES.kind: WorkQueue(NODES.kind, self._reconcile_node),
        }
        # The indexes listen first: whoever is told of a change must find it there.
        self._instances = Owned(self._informers[VMIS])
        self._pods = Owned(self._informers[PODS])
        self._revisions = Owned(self._informers[CONTROLLER_REVISIONS])
        for resource in (VMS, VMIS, VMIRS, NODES):
            self._informers[resource].listen(self._enqueue(self._queues[resource.kind]))
        for resource in (VMIS, PODS):
            self._informers[resource].listen(self._enqueue_owner)
        self._informers[VMIS].listen(self._enqueue_node)
        self._informers[PODS].listen(self._enqueue_node_of_ended)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            for informer in self._informers.values():
                await stack.enter_async_context(informer.running())
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run())
                for queue in self._queues.values():
                    group.create_task(queue.run())

    def _enqueue(self, queue: WorkQueue) -> Callable[[Object | None, Object | None], None]:
        def changed(old: Object | None, new: Object | None) -> None:
            if (obj := new or old) is not None:
                queue.add(key_of(obj))

        return changed

    def _enqueue_owner(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is None:
            return
        if (owner := controller_of(obj)) and (queue := self._queues.get(owner["kind"])):
            queue.add((obj["metadata"]["namespace"], owner["name"]))
        elif owner is None and obj["kind"] == VMIS.kind:
            # A VM of its name may want to adopt it.
            self._queues[VMS.kind].add(key_of(obj))

    def _enqueue_node(self, _: Object | None, new: Object | None) -> None:
        if new is not None and (name := node.node_of(new)):
            self._queues[NODES.kind].add(("", name))

    def _enqueue_node_of_ended(self, _: Object | None, new: Object | None) -> None:
        if new is not None and vmi.is_down(new) and "nodeName" in new["spec"]:
            self._queues[NODES.kind].add(("", new["spec"]["nodeName"]))

    async def _reconcile_vm(self, key: Key) -> timedelta | None:
        machine = self._informers[VMS].get(*key)
        if machine is None:
            return None
        if adoption := vm.adoption_writes(machine, self._informers[VMIS].get(*key)):
            await self._writer.perform(adoption)
        instance = self._instance_of(machine)
        if first := vm.metadata_writes(machine, instance):
            await self._writer.perform(first)
            return None
        # One moment for the whole pass: a start put off by it must be due again by it, too.
        moment, failure = now(), None
        revisions = self._revisions_of(machine, instance)
        try:
            await self._writer.perform(vm.spec_writes(machine, instance, revisions, moment))
        except KubeError as error:
            if not is_lost_race(error):
                failure = vm.failed_sync(instance, error.message, moment)
            raise
        finally:
            # As KubeVirt does: a stop is told at once, a start only by the pass that finds the instance there.
            if instance is not None:
                instance = self._instance_of(machine)
            latest = self._informers[VMS].get(*key) or machine
            await self._writer.perform(vm.status_writes(latest, instance, revisions, moment, failure))
        return backoff(machine, moment) or None

    def _instance_of(self, machine: Object) -> Object | None:
        found = self._informers[VMIS].get(*key_of(machine))
        return found if found is not None and vm.owns(machine, found) else None

    def _revisions_of(self, machine: Object, instance: Object | None) -> list[Object]:
        """Those the VM has kept, and the one that its instance, which may be adopted, was started from."""
        revisions = self._revisions.of(machine)
        name = instance.get("status", {}).get("virtualMachineRevisionName") if instance else None
        if name is None or any(each["metadata"]["name"] == name for each in revisions):
            return revisions
        started_from = self._informers[CONTROLLER_REVISIONS].get(machine["metadata"]["namespace"], name)
        return revisions if started_from is None else [*revisions, started_from]

    async def _reconcile_vmirs(self, key: Key) -> timedelta | None:
        replica_set = self._informers[VMIRS].get(*key)
        if replica_set is None:
            return None
        if first := vmirs.metadata_writes(replica_set):
            await self._writer.perform(first)
            return None
        members = self._instances.of(replica_set)
        try:
            await self._writer.perform_together(vmirs.spec_writes(replica_set, members))
        finally:
            await self._writer.perform(vmirs.status_writes(replica_set, members))
        return None

    async def _reconcile_vmi(self, key: Key) -> timedelta | None:
        instance = self._informers[VMIS].get(*key)
        if instance is None:
            return None
        pod = next(iter(self._pods.of(instance)), None)
        writes = vmi.plan(instance, pod, now(), has_vm=self._has_vm(instance))
        try:
            await self._writer.perform(writes)
        except KubeError as error:
            if pod is None and is_create(writes) and error.code != 409:
                await self._writer.perform(vmi.failed_create(instance, error.message, now()))
            raise
        return vmi.HANDLER_TIME if vmi.awaits_handler(instance, now()) else None

    def _has_vm(self, instance: Object) -> bool:
        machine = self._informers[VMS].get(*key_of(instance))
        return machine is not None and vm.owns(machine, instance)

    async def _reconcile_node(self, key: Key) -> timedelta | None:
        _, name = key
        machine, moment = self._informers[NODES].get(*key), now()
        if node.is_responsive(machine, moment):
            return node.time_left(machine, moment) if machine is not None else None
        vmis, pods = self._informers[VMIS].items(), self._informers[PODS].items()
        await self._writer.perform(node.plan(name, machine, vmis, pods))
        return None


def is_create(writes: list[Write]) -> bool:
    return any(isinstance(write, Create) for write in writes)
