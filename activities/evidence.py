"""What proves a sequence: the kube-apiserver's audit log, never the word of whoever acted."""

import asyncio
from datetime import timedelta
from pathlib import Path

from temporalio import activity

from activities.errors import refusals_are_final
from virtflow.kube import KubeClient
from virtflow.kube.resources import HPAS
from virtflow.sequence.audit import Write, read_writes
from virtflow.sequence.create import observe_create
from virtflow.sequence.scale import observe_scale_decisions
from workflows.models import ObservedArrow, ReplicaSetRef, ScaleDecision, VirtualMachineRef

__all__ = ["Evidence"]

COMPLETE_WITHIN = timedelta(seconds=5)
POLL = timedelta(milliseconds=100)


class Evidence:
    """Reads the cluster's record, and the specification a record is held against."""

    def __init__(self, kube: KubeClient, audit_log: Path) -> None:
        self._kube = kube
        self._audit_log = audit_log

    @activity.defn
    async def observe_create_sequence(self, machine: VirtualMachineRef) -> list[ObservedArrow]:
        """Each arrow of the create sequence with its proof, or without.

        The log's last lines may come a moment after the watch that reported the end of the sequence.
        """
        attempts = int(COMPLETE_WITHIN / POLL)
        for _ in range(attempts):
            writes = await self._writes(machine.namespace)
            arrows = observe_create(writes, machine)
            if all(arrow.observed for arrow in arrows):
                break
            await asyncio.sleep(POLL.total_seconds())
        return arrows

    @activity.defn
    async def observe_scale_decisions(self, target: ReplicaSetRef) -> list[ScaleDecision]:
        """Each decision of the autoscaler, with what it saw and what followed."""
        with refusals_are_final():
            autoscaler = await self._kube.get(HPAS, target.autoscaler, target.namespace)
        return observe_scale_decisions(await self._writes(target.namespace), target, autoscaler["spec"])

    async def _writes(self, namespace: str) -> list[Write]:
        return await asyncio.to_thread(lambda: list(read_writes(self._audit_log, namespace)))
