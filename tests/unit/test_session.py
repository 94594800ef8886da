"""What a step's failure is: about what is tested, or about what the tests stand on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pytest_bdd.parser import Step
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ActivityError, ApplicationError, RetryState
from temporalio.service import RPCError, RPCStatusCode

from tests.e2e import conftest
from virtflow.errors import InfrastructureError
from workflows.models import ScenarioOrder, StepsTaken
from workflows.options import IDLE_TIMEOUT
from workflows.scenario import Scenario

NOWHERE = Path("kubeconfig")


class BegunHandle:
    """A session that an earlier runner began."""

    def __init__(self, taken: StepsTaken) -> None:
        self._taken = taken
        self._silent = 3

    async def query(self, _: object) -> StepsTaken:
        self._silent -= 1
        if self._silent > 0:
            raise RPCError("no worker has asked for work", RPCStatusCode.FAILED_PRECONDITION, b"")
        return self._taken

    async def execute_update(self, *_: object, **__: object) -> list[str]:
        return []


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


ORDER = ScenarioOrder("run", "feature", "scenario", {}, IDLE_TIMEOUT)


def session(portal: BlockingPortal, error: Exception) -> conftest.Session:
    return conftest.Session(portal, cast(WorkflowHandle[Any, list[str]], FailingHandle(error)), ORDER)


def taken_up(portal: BlockingPortal, taken: StepsTaken) -> conftest.Session:
    session = conftest.Session(portal, cast(WorkflowHandle[Any, list[str]], BegunHandle(taken)), ORDER)
    session.take_up()
    return session


def marks(session: conftest.Session, asks: list[int]) -> list[str]:
    """Of steps that ask so often."""
    found = []
    for number, times in enumerate(asks):
        session.entered(Step("Given", f"step {number}", 1, 1, "Given"))
        for _ in range(times):
            session.ask(Scenario.list_virtual_machines, "namespace")
        found.append(session.resumed)
    return found


def ids(portal: BlockingPortal, asks: list[int]) -> list[str]:
    """Of the updates of such steps."""
    begun: list[str] = []

    class Handle(BegunHandle):
        async def execute_update(self, *_: object, **options: object) -> list[str]:
            begun.append(str(options["id"]))
            return []

    handle = cast(WorkflowHandle[Any, list[str]], Handle(StepsTaken([], [], is_over=False)))
    marks(conftest.Session(portal, handle, ORDER), asks)
    return begun


ASKS = [1, 0, 2, 0, 1, 0]


@pytest.mark.parametrize(
    ("finished", "under_way", "expected"),
    [
        (0, 0, ["", "", "", "", "", ""]),
        (0, 1, ["taken up", "", "", "", "", ""]),
        (1, 0, ["resumed", "", "", "", "", ""]),
        (1, 1, ["resumed", "resumed", "taken up", "", "", ""]),
        (2, 0, ["resumed", "resumed", "taken up", "", "", ""]),
        (2, 1, ["resumed", "resumed", "taken up", "", "", ""]),
        (3, 0, ["resumed", "resumed", "resumed", "", "", ""]),
        (3, 1, ["resumed", "resumed", "resumed", "resumed", "taken up", ""]),
        (4, 0, ["resumed", "resumed", "resumed", "resumed", "resumed", ""]),
    ],
)
def test_a_step_is_marked_by_what_the_session_says_of_it(
    portal: BlockingPortal, finished: int, under_way: int, expected: list[str]
) -> None:
    known = ids(portal, ASKS)
    taken = StepsTaken(known[:finished], known[finished : finished + under_way], is_over=False)
    assert marks(taken_up(portal, taken), ASKS) == expected


def test_a_session_that_was_undone_meanwhile_is_not_gone_on_with(portal: BlockingPortal) -> None:
    words = (
        r"nobody had spoken to it for 10 minutes, or somebody cancelled it\. .* `virtflow e2e --feature 'scenario'`"
    )
    with pytest.raises(InfrastructureError, match=words):
        taken_up(portal, StepsTaken(["001-1-a"], [], is_over=True))


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
