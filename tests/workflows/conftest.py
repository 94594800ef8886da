"""Workflows on Temporal's time-skipping server, with activities that only note that they were called.

The server has one clock for all, so these tests do not run at the same time.
"""

import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from virtflow.temporal import DATA_CONVERTER
from virtflow.worker import WORKFLOWS

TASK_QUEUE = "tests"


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    program = Path(sys.executable).with_name("temporal-test-server")
    async with await WorkflowEnvironment.start_time_skipping(
        test_server_existing_path=str(program), data_converter=DATA_CONVERTER
    ) as environment:
        yield environment


@pytest.fixture
def client(environment: WorkflowEnvironment) -> Client:
    return environment.client


@pytest.fixture
def worker(client: Client) -> Callable[..., Worker]:
    """A worker with all workflows and the given activities; use it as `async with worker(...)`."""

    def make(*activities: Callable[..., Any]) -> Worker:
        return Worker(
            client,
            task_queue=TASK_QUEUE,
            workflows=WORKFLOWS,
            activities=activities,
            workflow_failure_exception_types=[Exception],
            max_heartbeat_throttle_interval=timedelta(milliseconds=100),
            # A machine that stalls for two seconds is no deadlock.
            debug_mode=True,
        )

    return make


async def until_cancel_is_requested(handle: WorkflowHandle[Any, Any]) -> None:
    """Until the workflow's code has been given its cancellation: a workflow task after the request has ended."""
    with anyio.fail_after(30):
        while True:
            events = [event.event_type async for event in handle.fetch_history_events()]
            if EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED in events:
                later = events[events.index(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED) :]
                if EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED in later:
                    return
            await anyio.sleep(0.05)


async def until_there_is(handle: WorkflowHandle[Any, Any], event_type: "EventType.ValueType") -> None:
    """Until such an event is in the workflow's history."""
    with anyio.fail_after(30):
        while event_type not in [event.event_type async for event in handle.fetch_history_events()]:  # noqa: ASYNC110
            await anyio.sleep(0.05)
