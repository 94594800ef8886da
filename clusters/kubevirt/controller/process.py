"""The process: informers feed the queues, the queues call the reconcilers, and nothing is listed again.

It uses the API alone and keeps nothing of its own, so it may be killed at any moment, and KubeVirt's own
virt-controller may take its place. An instance that waits to lead keeps its caches warm, but no queues: what
there is to do, it looks for when its turn comes. That is the one time to list again: what the one before it did
last, a watch that lags or has just been lost may not have told yet, and a pod not heard of would count as gone.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from clusters.kubevirt.controller import membership, node, vm, vmi, vmirs
from clusters.kubevirt.controller.events import Note, Recorder
from clusters.kubevirt.controller.indexes import Index, by_controller, by_namespace, orphans_by_namespace
from clusters.kubevirt.controller.lease import LeadershipLostError, Lease
from clusters.kubevirt.controller.run_strategy import backoff
from clusters.kubevirt.controller.selectors import selects
from clusters.kubevirt.controller.workqueue import WorkQueue, is_lost_race
from clusters.kubevirt.controller.writes import Create, Write, Writer
from clusters.kubevirt.objects import LAUNCHERS, controller_of, is_deleting, key_of, now
from virtflow.kube import NO_ANSWER, Informer, Key, KubeClient, KubeError, Object, Resource, describe
from virtflow.kube.resources import CONTROLLER_REVISIONS, NODES, PODS, VMIRS, VMIS, VMS

__all__ = ["Controller", "run_controller"]

log = logging.getLogger(__name__)

PROGRAM, COMPONENT = "virt-controller", "virtualmachine-controller"
RECONCILED = (VMS, VMIS, VMIRS, NODES)
OWNERS = {(resource.api_version, resource.kind) for resource in (VMS, VMIS, VMIRS)}
CATCH_UP_RETRY = timedelta(seconds=1)
GATHER = timedelta(milliseconds=100)
"""A pass over a replica set looks at all its members: so it waits for what else becomes of them. Not so for the first
change, nor for one of the set itself."""


async def run_controller(kubeconfig: Path, namespace: str, identity: str) -> None:
    """Be virt-controller, until cancelled or told to end by SIGTERM, with the identity of a kubeconfig.

    `namespace` is where the Lease is that decides who works. Leaves by SystemExit once another may lead.
    """
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with await KubeClient.connect(kubeconfig, agent=PROGRAM) as kube:
        try:
            await Controller(kube).run(Lease(kube, namespace, PROGRAM, identity))
        except ExceptionGroup as group:
            if (lost := group.subgroup(LeadershipLostError)) is None:
                raise
            raise SystemExit(str(lost.exceptions[0])) from None


class Controller:
    """The reconcilers around one set of caches."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._informers: dict[Resource, Informer] = {
            VMS: Informer(kube, VMS),
            VMIS: Informer(kube, VMIS),
            VMIRS: Informer(kube, VMIRS),
            PODS: Informer(kube, PODS, selector=LAUNCHERS),
            CONTROLLER_REVISIONS: Informer(kube, CONTROLLER_REVISIONS),
            NODES: Informer(kube, NODES),
        }
        self._recorder = Recorder(kube, COMPONENT)
        self._writer = Writer(kube, self._informers, self._recorder)
        self._queues = {
            VMS.kind: WorkQueue(VMS.kind, self._reconcile_vm),
            VMIS.kind: WorkQueue(VMIS.kind, self._reconcile_vmi),
            VMIRS.kind: WorkQueue(VMIRS.kind, self._reconcile_vmirs, gather=GATHER),
            NODES.kind: WorkQueue(NODES.kind, self._reconcile_node),
        }
        self._instances = Index(self._informers[VMIS], by_controller)
        self._orphans = Index(self._informers[VMIS], orphans_by_namespace)
        self._on_nodes = Index(self._informers[VMIS], node.node_of)
        self._pods = Index(self._informers[PODS], by_controller)
        self._revisions = Index(self._informers[CONTROLLER_REVISIONS], by_controller)
        self._sets = Index(self._informers[VMIRS], by_namespace)

    async def run(self, lease: Lease) -> None:
        """Fill the caches, then wait for the lease, and work for as long as it is held.

        Raises an ExceptionGroup with LeadershipLostError when it is not any more.
        """
        async with AsyncExitStack() as stack:
            for informer in self._informers.values():
                await stack.enter_async_context(informer.running())
            async with lease.held() as record:
                leader = record["spec"]["holderIdentity"]
                self._recorder.record(Note(record, "Normal", "LeaderElection", f"{leader} became leader", PROGRAM))
                if lease.has_waited:
                    await asyncio.gather(*map(catch_up, self._informers.values()))
                self._fill_queues()
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._recorder.run())
                    for queue in self._queues.values():
                        group.create_task(queue.run())

    def _fill_queues(self) -> None:
        """With everything there is, and from now on with what changes."""
        for resource in RECONCILED:
            changed = self._enqueue(self._queues[resource.kind])
            self._informers[resource].listen(changed)
            for obj in self._informers[resource].items():
                changed(None, obj)
        self._informers[VMS].listen(self._enqueue_left_instance)
        for resource in (VMIS, PODS):
            self._informers[resource].listen(self._enqueue_owners)
        self._informers[VMIS].listen(self._offer_orphan)
        self._informers[VMIS].listen(self._enqueue_node)
        self._informers[PODS].listen(self._enqueue_node_of_ended)

    def _enqueue(self, queue: WorkQueue) -> Callable[[Object | None, Object | None], None]:
        def changed(old: Object | None, new: Object | None) -> None:
            if (obj := new or old) is not None:
                queue.add(key_of(obj))

        return changed

    def _enqueue_owners(self, old: Object | None, new: Object | None) -> None:
        """Also the former one of what has another now, or none."""
        for obj in (old, new):
            owner = controller_of(obj) if obj is not None else None
            if obj is not None and owner is not None and (owner["apiVersion"], owner["kind"]) in OWNERS:
                self._queues[owner["kind"]].add_soon((obj["metadata"]["namespace"], owner["name"]))

    def _enqueue_left_instance(self, old: Object | None, new: Object | None) -> None:
        """It may only wait for somebody to let it go, and that is no longer its VM's to do."""
        if old is not None and new is None:
            self._queues[VMIS.kind].add(key_of(old))

    def _offer_orphan(self, old: Object | None, new: Object | None) -> None:
        """To the VM of its name, and to the sets that would have it, when it has become one or has other labels."""
        if new is None or controller_of(new) is not None or is_deleting(new):
            return
        if old is not None and controller_of(old) is None and labels_of(old) == labels_of(new):
            return
        self._queues[VMS.kind].add(key_of(new))
        for replica_set in self._sets.of(new["metadata"]["namespace"]):
            if selects(replica_set["spec"]["selector"], new):
                self._queues[VMIRS.kind].add(key_of(replica_set))

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
            if not await self._stays(VMS, machine):
                return None
            await self._writer.perform(adoption)
        instance = self._instance_of(machine)
        if first := vm.metadata_writes(machine, instance):
            await self._writer.perform(first)
            return None
        # One moment for the whole pass: a start put off by it must be due again by it, too.
        moment, failure = now(), None
        revisions = self._revisions_of(machine, instance)
        problem = await self._attempt(self._writer.perform(vm.spec_writes(machine, instance, revisions, moment)))
        if (error := worth_telling(problem)) is not None:
            failure = vm.failed_sync(instance, error, moment)
        # As KubeVirt does: a stop is told at once, a start only by the pass that finds the instance there.
        if instance is not None:
            instance = self._instance_of(machine)
        latest = self._informers[VMS].get(*key) or machine
        await self._writer.perform(vm.status_writes(latest, instance, revisions, moment, failure))
        if problem:
            raise problem
        return backoff(machine, moment) or None

    def _instance_of(self, machine: Object) -> Object | None:
        found = self._informers[VMIS].get(*key_of(machine))
        return found if found is not None and vm.owns(machine, found) else None

    def _revisions_of(self, machine: Object, instance: Object | None) -> list[Object]:
        """Those the VM has kept, and the one that its instance, which may be adopted, was started from."""
        revisions = self._revisions.of(machine["metadata"]["uid"])
        name = instance.get("status", {}).get("virtualMachineRevisionName") if instance else None
        if name is None or any(each["metadata"]["name"] == name for each in revisions):
            return revisions
        started_from = self._informers[CONTROLLER_REVISIONS].get(machine["metadata"]["namespace"], name)
        return revisions if started_from is None else [*revisions, started_from]

    async def _reconcile_vmirs(self, key: Key) -> timedelta | None:
        replica_set = self._informers[VMIRS].get(*key)
        if replica_set is None or not vmirs.is_valid(replica_set):
            return None
        if first := vmirs.metadata_writes(replica_set):
            await self._writer.perform(first)
            return None
        if not await self._claim(replica_set):
            return None
        members = membership.members(replica_set, self._instances.of(replica_set["metadata"]["uid"]))
        problem = await self._attempt(self._scale(replica_set, members))
        await self._writer.perform(vmirs.status_writes(replica_set, members, worth_telling(problem), now()))
        if problem:
            raise problem
        return None

    async def _claim(self, replica_set: Object) -> bool:
        """Adopt and release. False if the set turns out to be going, which its next change will tell."""
        meta = replica_set["metadata"]
        adoptions = membership.adoptions(replica_set, self._orphans.of(meta["namespace"]))
        if adoptions and not await self._stays(VMIRS, replica_set):
            return False
        releases = membership.releases(replica_set, self._instances.of(meta["uid"]))
        await self._writer.perform_together([*adoptions, *releases])
        return True

    async def _stays(self, resource: Resource, owner: Object) -> bool:
        """Asked before it adopts: the cache may not know yet that it goes, and what it lets go must not come back."""
        meta = owner["metadata"]
        fresh = await self._kube.get(resource, meta["name"], meta["namespace"])
        return not is_deleting(fresh) and bool(fresh["metadata"]["uid"] == meta["uid"])

    async def _scale(self, replica_set: Object, members: list[Object]) -> None:
        await self._writer.perform_together(vmirs.scale_writes(replica_set, members))
        await self._writer.perform_together(vmirs.cleanup_writes(replica_set, members))

    async def _attempt(self, writes: Awaitable[None]) -> Exception | None:
        """What went wrong, to be raised when the status has been told. Not a cancellation: then nothing follows."""
        try:
            await writes
        except Exception as problem:
            return problem
        return None

    async def _reconcile_vmi(self, key: Key) -> timedelta | None:
        instance = self._informers[VMIS].get(*key)
        if instance is None:
            return None
        pod = next(iter(self._pods.of(instance["metadata"]["uid"])), None)
        writes = vmi.plan(instance, pod, now(), has_vm=self._has_vm(instance))
        try:
            await self._writer.perform(writes)
        except KubeError as problem:
            if pod is None and is_create(writes) and (error := worth_telling(problem)) is not None:
                await self._writer.perform(vmi.failed_create(instance, error, now()))
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
        vmis = self._on_nodes.of(name)
        pods = [pod for each in vmis for pod in self._pods.of(each["metadata"]["uid"])]
        await self._writer.perform(node.plan(machine, vmis, pods))
        return None


def worth_telling(problem: Exception | None) -> str | None:
    """What a status is to say of what went wrong: a refusal, but not a race that the next pass will win."""
    return problem.message if isinstance(problem, KubeError) and not is_lost_race(problem) else None


async def catch_up(informer: Informer) -> None:
    while True:
        try:
            return await informer.catch_up()
        except (KubeError, *NO_ANSWER) as error:
            log.warning("what %s there are by now is not known yet: %s", informer.resource.plural, describe(error))
        await asyncio.sleep(CATCH_UP_RETRY.total_seconds())


def labels_of(obj: Object) -> Object:
    labels: Object = obj["metadata"].get("labels", {})
    return labels


def is_create(writes: list[Write]) -> bool:
    return any(isinstance(write, Create) for write in writes)
