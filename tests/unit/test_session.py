"""What a step's failure is: about what is tested, or about what the tests stand on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ActivityError, ApplicationError, RetryState
from temporalio.service import RPCError, RPCStatusCode

from tests.e2e import conftest
from virtflow.errors import InfrastructureError
from workflows.models import ScenarioOrder
from workflows.options import IDLE_TIMEOUT
from workflows.scenario import Scenario

NOWHERE = Path("kubeconfig")


class FailingHandle:
    """A workflow that answers everything with one error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def execute_update(self, *_: object, **__: object) -> None:
        raise self._error

    async def signal(self, _: object) -> None:
        raise self._error

    async def result(self) -> list[str]:
        raise self._error


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


def session(portal: BlockingPortal, error: Exception) -> conftest.Session:
    order = ScenarioOrder("run", "feature", "scenario", {}, IDLE_TIMEOUT)
    return conftest.Session(portal, cast(WorkflowHandle[Any, list[str]], FailingHandle(error)), order)


def failed_update(cause: ApplicationError) -> WorkflowUpdateFailedError:
    activity = ActivityError(
        "Activity task failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="",
        activity_id="",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    activity.__cause__ = cause
    return WorkflowUpdateFailedError(activity)


def test_a_refusal_is_what_the_step_says(portal: BlockingPortal) -> None:
    error = failed_update(ApplicationError("No such machine.", type="Refused"))
    with pytest.raises(AssertionError, match=r"^No such machine\.$"):
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")


def test_a_load_that_did_not_run_is_infrastructure(portal: BlockingPortal) -> None:
    error = failed_update(ApplicationError("Locust hangs.", type="LoadError"))
    with pytest.raises(InfrastructureError, match=r"^Locust hangs\.$"):
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")


def test_without_temporal_it_is_infrastructure(portal: BlockingPortal) -> None:
    error = RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b"")
    words = r"^Temporal gave no answer \(UNAVAILABLE: connection refused\)\. .*virtflow logs temporal"
    with pytest.raises(InfrastructureError, match=words):
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")
    for ending in (session(portal, error).end, lambda: session(portal, error).left(NOWHERE)):
        with pytest.raises(InfrastructureError, match=words):
            ending()


def test_a_silent_worker_is_infrastructure(portal: BlockingPortal) -> None:
    with pytest.raises(InfrastructureError, match=r"^The worker gave no answer for 45 minutes\."):
        session(portal, TimeoutError()).ask(Scenario.list_virtual_machines, "namespace")
    with pytest.raises(InfrastructureError, match=r"^The worker gave no answer for 15 minutes\."):
        session(portal, TimeoutError()).left(NOWHERE)
