"""What proves a sequence: the kube-apiserver's audit log and the gateway's access log, never the word of an actor."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from temporalio import activity

from activities.errors import refusals_are_final
from virtflow.kube import KubeClient
from virtflow.kube.resources import HPAS
from virtflow.sequence.audit import read_records, read_writes
from virtflow.sequence.create import audit_ids, observe_request_and_create
from virtflow.sequence.scale import observe_scale_decisions
from workflows.models import CreateEvidence, ObservedArrow, ReplicaSetRef, ScaleDecision

__all__ = ["Evidence"]

COMPLETE_WITHIN = timedelta(seconds=5)
POLL = timedelta(milliseconds=250)

Observation = TypeVar("Observation")


class Evidence:
    """Reads the records of the cluster and the gateway, and the specification a record is held against."""

    def __init__(self, kube: KubeClient, audit_log: Path, access_log: Path) -> None:
        self._kube = kube
        self._audit_log = audit_log
        self._access_log = access_log

    @activity.defn
    async def observe_create_sequence(self, evidence: CreateEvidence) -> list[ObservedArrow]:
        """Each arrow of the create sequence with its proof, or without."""
        namespace, request_id = evidence.machine.namespace, evidence.request_id

        def observe() -> list[ObservedArrow]:
            writes = list(read_writes(self._audit_log, namespace, audit_ids(request_id)))
            return observe_request_and_create(evidence, read_records(self._access_log, request_id), writes)

        return await _once_complete(observe, lambda arrows: all(arrow.observed for arrow in arrows))

    @activity.defn
    async def observe_scale_decisions(self, target: ReplicaSetRef) -> list[ScaleDecision]:
        """Each decision of the autoscaler, with what it saw and what followed."""
        with refusals_are_final():
            autoscaler = await self._kube.get(HPAS, target.autoscaler, target.namespace)

        def observe() -> list[ScaleDecision]:
            writes = list(read_writes(self._audit_log, target.namespace))
            return observe_scale_decisions(writes, target, autoscaler["spec"])

        return await _once_complete(
            observe, lambda decisions: all(decision.utilization is not None for decision in decisions)
        )


async def _once_complete(
    observe: Callable[[], Observation], is_complete: Callable[[Observation], bool]
) -> Observation:
    """What is in the logs once it is complete, or what is in them when the time is over.

    A log's last lines may come a moment after the watch that reported the end of the sequence. The time is
    bounded, not the tries: how long reading takes depends on how long the log is.
    """
    deadline = time.monotonic() + COMPLETE_WITHIN.total_seconds()
    while True:
        seen = await asyncio.to_thread(observe)
        if is_complete(seen) or time.monotonic() >= deadline:
            return seen
        await asyncio.sleep(POLL.total_seconds())
