"""A replica set of virtual machines and its autoscaler, as the cluster reports them."""

import asyncio
import math
from collections.abc import Callable, Iterator
from datetime import timedelta

import yaml
from temporalio import activity

from activities.causes import NOBODY, Causes
from activities.deadline import time_left
from activities.errors import gave_up, refusals_are_final
from activities.heartbeat import heartbeating
from activities.manifests import label
from activities.no_figures import has_no_figures
from activities.strain import strain_of
from virtflow.errors import VirtflowError
from virtflow.kube import Informer, KubeClient, Object, Resource
from virtflow.kube.resources import HPAS, VMIRS
from virtflow.sequence.scale import TOLERANCE, current_utilization, target_utilization
from workflows.failures import FailureType, failure
from workflows.models import AutoscalerSpec, ReplicaSetOrder, ReplicaSetRef, ReplicasWait, ScaleState, SettleWait
from workflows.quota_models import Strain, StuckWait

__all__ = ["Autoscaling"]

IN_BAND_FOR = timedelta(seconds=3)
"""How long the metric must stay in the band, or all be stuck: one look may be between two sizes."""
LOOK_EVERY = timedelta(milliseconds=250)


class Autoscaling:
    """Acts as the platform's administrator: replica sets and autoscalers are not among a tenant's rights."""

    def __init__(
        self, kube: KubeClient, replica_sets: Informer, autoscalers: Informer, instances: Informer, quotas: Informer
    ) -> None:
        self._kube = kube
        self._causes = Causes(kube)
        self._replica_sets = replica_sets
        self._autoscalers = autoscalers
        self._instances = instances
        self._quotas = quotas

    @activity.defn
    async def create_replica_set(self, order: ReplicaSetOrder) -> ReplicaSetRef:
        """Make the replica set and its autoscaler, and wait until the first of its replicas are ready."""
        replica_set, autoscaler = yaml.safe_load(order.replica_set), yaml.safe_load(order.autoscaler)
        target = ReplicaSetRef(order.namespace, replica_set["metadata"]["name"], autoscaler["metadata"]["name"])
        async with heartbeating():
            with refusals_are_final():
                await self._apply(VMIRS, replica_set, order)
                wanted = int(replica_set["spec"].get("replicas", 1))
                await self._until(
                    target,
                    lambda state: state.ready == state.replicas == wanted,
                    time_left(order.ready_within),
                    f"have {wanted} ready",
                )
                await self._apply(HPAS, autoscaler, order)
        return target

    @activity.defn
    async def read_autoscaler(self, target: ReplicaSetRef) -> AutoscalerSpec:
        with refusals_are_final():
            autoscaler = await self._kube.get(HPAS, target.autoscaler, target.namespace)
        spec = autoscaler["spec"]
        try:
            target_percent = target_utilization(spec)
        except VirtflowError as error:
            raise failure(FailureType.REFUSED, str(error)) from error
        return AutoscalerSpec(int(spec.get("minReplicas", 1)), int(spec["maxReplicas"]), target_percent)

    @activity.defn
    async def await_replicas(self, wait: ReplicasWait) -> ScaleState:
        """Wait until exactly so many replicas are wanted, there and ready."""
        count = wait.replicas

        def reached(state: ScaleState) -> bool:
            return state.desired in (0, count) and state.replicas == state.ready == count

        async with heartbeating():
            return await self._until(wait.target, reached, time_left(wait.within), f"have exactly {count} ready")

    @activity.defn
    async def await_settled(self, wait: SettleWait) -> ScaleState:
        """Wait until it has scaled out, all replicas are ready, and the autoscaler sees no reason for more."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + time_left(wait.within).total_seconds()

        def rests(state: ScaleState) -> bool:
            return (
                state.replicas > wait.before and state.ready == state.replicas and self._in_band(wait.target, state)
            )

        async with heartbeating():
            while True:
                left = timedelta(seconds=deadline - clock())
                await self._until(wait.target, rests, left, "scale out and settle")
                if not await self._comes_true(wait.target, lambda state: not rests(state), IN_BAND_FOR):
                    return self._state(wait.target)

    @activity.defn
    async def await_stuck(self, wait: StuckWait) -> Strain:
        """Wait until the autoscaler is stuck at a quota, and nothing of it moves any more."""
        target = wait.target
        async with heartbeating():
            try:
                async with asyncio.timeout(time_left(wait.within).total_seconds()):
                    while True:
                        strain = self._strain(target)
                        if strain.is_stuck:
                            await asyncio.sleep(IN_BAND_FOR.total_seconds())
                            if self._strain(target) == strain:
                                return strain
                        # A look at copies in memory; what it waits for is spread over many objects of four kinds.
                        await asyncio.sleep(LOOK_EVERY.total_seconds())
            except TimeoutError:
                raise gave_up(
                    f"The autoscaler {target.namespace}/{target.autoscaler} was not stuck at a quota within "
                    f"{wait.within.total_seconds():.0f} s: {await self._why(target)}"
                ) from None

    async def _apply(self, resource: Resource, body: Object, order: ReplicaSetOrder) -> None:
        label(body, order.labels)
        await self._kube.apply(resource, body, order.namespace)

    async def _until(
        self, target: ReplicaSetRef, done: Callable[[ScaleState], bool], within: timedelta, what: str
    ) -> ScaleState:
        """Wait for a state of the two objects together, and name the last one if it does not come."""
        if not await self._comes_true(target, done, within):
            raise gave_up(
                f"Replica set {target.namespace}/{target.name} did not {what} in time: {await self._why(target)}"
            )
        return self._state(target)

    async def _comes_true(self, target: ReplicaSetRef, done: Callable[[ScaleState], bool], within: timedelta) -> bool:
        async def of(informer: Informer, name: str) -> None:
            await informer.wait_for(target.namespace, name, lambda _: done(self._state(target)))

        tasks = [
            asyncio.create_task(of(self._replica_sets, target.name)),
            asyncio.create_task(of(self._autoscalers, target.autoscaler)),
        ]
        try:
            reached, _ = await asyncio.wait(
                tasks, timeout=max(within.total_seconds(), 0), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in reached:
            task.result()
        return bool(reached)

    def _state(self, target: ReplicaSetRef) -> ScaleState:
        replica_set = self._replica_sets.get(target.namespace, target.name) or {}
        autoscaler = self._autoscalers.get(target.namespace, target.autoscaler) or {}
        status = replica_set.get("status", {})
        return ScaleState(
            replicas=status.get("replicas", 0),
            ready=status.get("readyReplicas", 0),
            desired=autoscaler.get("status", {}).get("desiredReplicas", 0),
            utilization=current_utilization(autoscaler.get("status", {}).get("currentMetrics")),
        )

    def _in_band(self, target: ReplicaSetRef, state: ScaleState) -> bool:
        autoscaler = self._autoscalers.get(target.namespace, target.autoscaler)
        if autoscaler is None or state.utilization is None or state.desired != state.replicas:
            return False
        if state.replicas == autoscaler["spec"]["maxReplicas"]:
            return True
        ratio = state.utilization / target_utilization(autoscaler["spec"])
        return math.isclose(ratio, 1, abs_tol=TOLERANCE)

    async def _why(self, target: ReplicaSetRef) -> str:
        """What is in the way, and how far it has come."""
        state, strain = self._state(target), self._strain(target)
        autoscaler = self._autoscalers.get(target.namespace, target.autoscaler) or {}
        replica_set = self._replica_sets.get(target.namespace, target.name) or {}
        causes = list(strain.reasons)
        if has_no_figures(autoscaler):
            causes.insert(
                0, f"the CPU use is <unknown>: {await self._causes.of_no_figures(target, autoscaler, replica_set)}"
            )
        if not causes:
            causes = await self._causes.of_namespace(target.namespace)
        percent = "<unknown>" if state.utilization is None else f"{state.utilization} %"
        return (
            f"{'; '.join(causes) or NOBODY}. It has {state.replicas} replicas, {state.ready} of them ready; the "
            f"autoscaler wants {state.desired} and sees a CPU use of {percent}."
        )

    def _strain(self, target: ReplicaSetRef) -> Strain:
        return strain_of(
            self._autoscalers.get(target.namespace, target.autoscaler) or {},
            self._replica_sets.get(target.namespace, target.name) or {},
            _in(target.namespace, self._instances),
            _in(target.namespace, self._quotas),
        )


def _in(namespace: str, informer: Informer) -> Iterator[Object]:
    return (obj for obj in informer.items() if obj["metadata"]["namespace"] == namespace)
