"""What proves a sequence: the kube-apiserver's audit log and the gateway's access log, never the word of an actor."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from temporalio import activity

from activities.deadline import time_left
from activities.errors import refusals_are_final
from activities.heartbeat import heartbeating
from virtflow.kube import KubeClient
from virtflow.kube.resources import HPAS, SELF_SUBJECT_REVIEWS
from virtflow.sequence.create import observe_request_and_create, review_ids
from virtflow.sequence.records import Records
from virtflow.sequence.recovery import NODE_CONTROLLER, observe_recovery
from virtflow.sequence.scale import observe_scale_decisions
from workflows.fault_models import OutageEvidence, OutageRecord, RecoveryEvidence
from workflows.models import CreateEvidence, ObservedArrow, ReplicaSetRef, ScaleDecision
from workflows.quota_models import Tries, TriesWait

__all__ = ["Evidence"]

COMPLETE_WITHIN = timedelta(seconds=5)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=10), timedelta(milliseconds=250)

Observation = TypeVar("Observation")


class Evidence:
    """Reads the records of the cluster and the gateway, and the specification a record is held against."""

    def __init__(self, kube: KubeClient, records: Records) -> None:
        self._kube = kube
        self._records = records

    @activity.defn
    async def observe_create_sequence(self, evidence: CreateEvidence) -> list[ObservedArrow]:
        """Each arrow of the create sequence with its proof, or without."""
        machine, request_id = evidence.machine, evidence.request_id

        def observe() -> list[ObservedArrow]:
            records = self._records.of_request(request_id)
            writes = self._records.of_machine(machine.namespace, machine.name, review_ids(request_id, records))
            return observe_request_and_create(evidence, records, writes)

        return await self._once_complete(
            observe, lambda arrows: all(arrow.observed for arrow in arrows), COMPLETE_WITHIN
        )

    @activity.defn
    async def observe_scale_decisions(self, target: ReplicaSetRef) -> list[ScaleDecision]:
        """Each decision of the autoscaler, with what it saw and what followed."""
        with refusals_are_final():
            autoscaler = await self._kube.get(HPAS, target.autoscaler, target.namespace)

        def observe() -> list[ScaleDecision]:
            return observe_scale_decisions(self._records.of_namespace(target.namespace), target, autoscaler["spec"])

        return await self._once_complete(
            observe, lambda decisions: all(each.utilization is not None for each in decisions), COMPLETE_WITHIN
        )

    @activity.defn
    async def observe_recovery(self, evidence: RecoveryEvidence) -> list[ObservedArrow]:
        """The end of a machine's launcher, and each arrow of its next start, with its proof, or without."""
        machine = evidence.machine
        ended_by = NODE_CONTROLLER if evidence.node_failed else await self._own_user()

        def observe() -> list[ObservedArrow]:
            writes = self._records.of_machine(machine.namespace, machine.name)
            return observe_recovery(machine, evidence.before, ended_by, writes)

        return await self._once_complete(
            observe, lambda arrows: all(arrow.observed for arrow in arrows), COMPLETE_WITHIN
        )

    @activity.defn
    async def observe_outage(self, evidence: OutageEvidence) -> OutageRecord:
        """What was created in a namespace, and whether anything was written there during an outage."""
        await self._records.catch_up()
        writes = self._records.of_namespace(evidence.namespace)
        created = [write.name for write in writes if (write.verb, write.resource) == ("create", "virtualmachines")]
        ended = evidence.ended
        return OutageRecord(created, sum(ended.gone_at < write.at < ended.back_at for write in writes))

    @activity.defn
    async def observe_tries(self, wait: TriesWait) -> list[Tries]:
        """Of each machine there what virt-controller was refused so far, when it is long enough to be judged.

        What there is, if it never is.
        """

        def observe() -> list[Tries]:
            return [Tries(*tries) for tries in sorted(self._records.refused_pods(wait.namespace).items())]

        def is_long_enough(tries: list[Tries]) -> bool:
            return len(tries) >= wait.machines and all(each.span >= wait.span for each in tries)

        async with heartbeating():
            return await self._once_complete(observe, is_long_enough, time_left(wait.within))

    async def _own_user(self) -> str:
        """Who kills launcher pods: this worker, as the kube-apiserver calls it."""
        with refusals_are_final():
            review = await self._kube.create(SELF_SUBJECT_REVIEWS, {})
        return str(review["status"]["userInfo"]["username"])

    async def _once_complete(
        self,
        observe: Callable[[], Observation],
        is_complete: Callable[[Observation], bool],
        within: timedelta,
    ) -> Observation:
        """What is on record once it is complete, or what is on record when the time is over.

        A log's last lines may come some milliseconds after the watch that reported the end of the sequence. The
        time is counted from where the logs end now: a worker that has just started may have long ones to read.
        """
        await self._records.catch_up()
        deadline = time.monotonic() + within.total_seconds()
        pause = FIRST_PAUSE
        while not is_complete(seen := observe()) and time.monotonic() < deadline:
            await asyncio.sleep(pause.total_seconds())
            pause = min(2 * pause, LONGEST_PAUSE)
            await self._records.catch_up()
        return seen
