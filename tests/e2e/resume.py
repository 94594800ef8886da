"""What a run needs to know of the runner before it, which was killed: from Temporal, and from the journal."""

from datetime import timedelta
from typing import Any, Literal

import pytest
from anyio import sleep
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from tests.e2e.report import ScenarioRecord
from virtflow.errors import InfrastructureError
from workflows.models import ScenarioOrder, StepsTaken
from workflows.scenario import Scenario

__all__ = ["ended_session", "retold", "steps_taken", "undone_meanwhile"]

POLL = timedelta(milliseconds=200)
NO_WORKER = (
    RPCStatusCode.CANCELLED,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.UNAVAILABLE,
)
"""Answers to a query while nobody asks for work."""


async def steps_taken(handle: WorkflowHandle[Any, list[str]]) -> StepsTaken:
    """By the session's own word. Waits for a worker, which has just been started, as long as it takes."""
    while True:
        try:
            return await handle.query(Scenario.steps_taken)
        except RPCError as error:
            if error.status not in NO_WORKER:
                raise
            await sleep(POLL.total_seconds())


async def ended_session(temporal: Client, session_id: str) -> WorkflowHandle[Any, list[str]] | None:
    """The session of a scenario that a runner finished, which may have been killed before it ended the session.

    None if there is none: the scenario failed before it had one.
    """
    handle = temporal.get_workflow_handle_for(Scenario.run, session_id)
    try:
        described = await handle.describe()
        if described.status is WorkflowExecutionStatus.RUNNING:
            await handle.signal(Scenario.end)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return None
    return handle


def undone_meanwhile(order: ScenarioOrder) -> InfrastructureError:
    minutes = order.idle_timeout / timedelta(minutes=1)
    return InfrastructureError(
        "This scenario had begun when the run was killed, and was undone before the run was resumed: nobody had "
        f"spoken to it for {minutes:.0f} minutes, or somebody cancelled it. What it had made is gone, and it cannot "
        f"go on. Run it anew: `virtflow e2e --feature '{order.scenario}'`."
    )


def retold(item: pytest.Item, scenario: ScenarioRecord) -> list[pytest.TestReport]:
    """What pytest itself would report of it, and `exit_codes`, for whom it concerns."""

    def part(when: Literal["setup", "call", "teardown"], *, is_whole: bool = False) -> pytest.TestReport:
        problem = scenario.words if is_whole else ""
        return pytest.TestReport(
            item.nodeid,
            item.location,
            keywords={},
            outcome="failed" if problem else "passed",
            longrepr=problem or None,
            when=when,
            duration=scenario.took.total_seconds() if is_whole else 0,
            exit_codes=scenario.exit_codes if is_whole else [],
        )

    return [part("setup"), part("call", is_whole=True), part("teardown")]
