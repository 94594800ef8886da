"""What proves a sequence: the kube-apiserver's audit log, never the word of whoever acted."""

import asyncio
from datetime import timedelta
from pathlib import Path

from temporalio import activity

from virtflow.sequence.audit import read_writes
from virtflow.sequence.create import observe_create
from workflows.models import ObservedArrow, VirtualMachineRef

__all__ = ["Evidence"]

COMPLETE_WITHIN = timedelta(seconds=5)
POLL = timedelta(milliseconds=100)


class Evidence:
    def __init__(self, audit_log: Path) -> None:
        self._audit_log = audit_log

    @activity.defn
    async def observe_create_sequence(self, machine: VirtualMachineRef) -> list[ObservedArrow]:
        """Each arrow of the create sequence with its proof, or without.

        The log's last lines may come a moment after the watch that reported the end of the sequence.
        """
        attempts = int(COMPLETE_WITHIN / POLL)
        for _ in range(attempts):
            writes = await asyncio.to_thread(lambda: list(read_writes(self._audit_log, machine.namespace)))
            arrows = observe_create(writes, machine)
            if all(arrow.observed for arrow in arrows):
                break
            await asyncio.sleep(POLL.total_seconds())
        return arrows
