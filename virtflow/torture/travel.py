"""Journeys that are on their way for as long as programs are killed, and where each of them was at a moment."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio.client import Client

from virtflow.journey import Handle, journey_order, travelled
from virtflow.journey_report import Journey
from virtflow.temporal import patiently
from workflows.journey_models import JourneyPhase

__all__ = ["EVIDENCE", "Travelled", "travel_until"]

USERS = 28
EVIDENCE = "evidence"
"""The step between a machine that runs and what comes next: the audit log is read."""
TO_THE_MACHINE = (JourneyPhase.TENANT_CREATED, JourneyPhase.VM_ACCEPTED, JourneyPhase.VM_RUNNING)
BEYOND = (JourneyPhase.REPLICA_SET_READY, JourneyPhase.SCALED_OUT, JourneyPhase.SCALED_IN, JourneyPhase.GONE)


@dataclass(frozen=True)
class Travelled:
    """A journey that has ended, and when."""

    journey: Journey
    namespace: str
    began: datetime
    ended: datetime

    def step_at(self, moment: datetime) -> str | None:
        """The phase it had not passed yet, by the times that Temporal told it; None if it was not on its way."""
        return next((step for begin, end, step in self._steps() if begin <= moment < end), None)

    def _steps(self) -> Iterator[tuple[datetime, datetime, str]]:
        outcome = self.journey.outcome
        if outcome is None:
            return
        took, at = outcome.took, self.began
        for phase in TO_THE_MACHINE:
            if phase in took:
                yield at, (at := at + took[phase]), phase
        end = self.ended
        if outcome.stopped_at is None:
            # No time is between these. What is left is that before them.
            for phase in reversed([phase for phase in BEYOND if phase in took]):
                yield end - took[phase], end, phase
                end -= took[phase]
            yield at, end, EVIDENCE
            return
        gone = end - took.get(JourneyPhase.GONE, timedelta())
        for phase in (JourneyPhase.REPLICA_SET_READY, JourneyPhase.SCALED_OUT):
            if phase in took:
                yield at, (at := at + took[phase]), phase
        yield at, gone, outcome.stopped_at
        yield gone, end, JourneyPhase.GONE


async def travel_until(over: asyncio.Event, temporal: Client, run_id: str, at_once: int) -> list[Travelled]:
    """Keep so many journeys on their way, one of them with load; return when all that began have ended.

    A journey that has ended makes room for the next one until it is `over`.
    """
    lanes = (_lane(over, temporal, run_id, number, at_once) for number in range(1, at_once + 1))
    return [journey for lane in await asyncio.gather(*lanes) for journey in lane]


async def _lane(over: asyncio.Event, temporal: Client, run_id: str, first: int, step: int) -> list[Travelled]:
    journeys: list[Travelled] = []
    while not over.is_set() or not journeys:
        number = first + len(journeys) * step
        workflow_id, order = journey_order(run_id, number, USERS if first == 1 else None)
        journey = await travelled(temporal, workflow_id, order)
        handle: Handle = temporal.get_workflow_handle(workflow_id)
        described = await patiently(handle.describe)
        assert described.close_time is not None
        journeys.append(Travelled(journey, order.tenant.namespace, described.start_time, described.close_time))
    return journeys
