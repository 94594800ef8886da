"""What a step's failure is: about what is tested, or about what the tests stand on."""

import inspect
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pytest_bdd.parser import Step
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    RetryState,
    TerminatedError,
    WorkflowAlreadyStartedError,
)
from temporalio.service import RPCError, RPCStatusCode

from tests.e2e import conftest
from virtflow import temporal
from virtflow.errors import CancelledError, InfrastructureError, VirtflowError
from workflows.failures import FailureType
from workflows.labels import SCENARIO
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

    ended_by = FailureType.ENDED
    status = WorkflowExecutionStatus.COMPLETED

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def execute_update(self, *_: object, **__: object) -> None:
        raise self._error

    async def describe(self) -> SimpleNamespace:
        return SimpleNamespace(status=self.status)

    async def query(self, _: object) -> FailureType:
        return self.ended_by

    async def signal(self, _: object) -> None:
        raise self._error

    async def result(self) -> list[str]:
        raise self._error


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


ORDER = ScenarioOrder("run", "feature", "scenario", {SCENARIO: "s1"}, IDLE_TIMEOUT)


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


def test_a_session_that_cannot_be_taken_up_is_told_to_end(
    portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Handle(BegunHandle):
        async def signal(self, signal: object) -> None:
            asked.append(signal)

    async def over(*_: object, **__: object) -> Handle:
        return Handle(StepsTaken([], [], is_over=True))

    async def gone(*_: object, **__: object) -> Handle:
        raise WorkflowAlreadyStartedError("run/feature/scenario", "Scenario")

    scenario = SimpleNamespace(name="scenario", feature=SimpleNamespace(name="feature"))
    request = SimpleNamespace(node=SimpleNamespace(stash={conftest.scenario_key: scenario}))
    report, config = SimpleNamespace(was_begun=lambda _: True), SimpleNamespace(getoption=lambda _: "run")
    monkeypatch.setattr(conftest, "session_id_of", lambda _: "run/feature/scenario")
    sessions: list[conftest.Session] = []
    fixture = inspect.unwrap(cast(Any, conftest.session))
    for start in (gone, over):
        temporal = SimpleNamespace(start_workflow=start)
        with pytest.raises(InfrastructureError, match="undone before the run was resumed"):
            next(fixture(request, portal, temporal, sessions, report, config))
    assert asked == [Scenario.end]
    assert len(sessions) == 1, "its end is waited for"


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
    with pytest.raises(VirtflowError, match=r"^No such machine\.$"):
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")


def test_a_load_that_did_not_run_is_infrastructure(portal: BlockingPortal) -> None:
    error = failed_update(ApplicationError("Locust hangs.", type="LoadError"))
    with pytest.raises(InfrastructureError, match=r"^Locust hangs\.$"):
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")


def test_without_temporal_it_is_infrastructure(portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "PATIENCE", timedelta())
    error = RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b"")
    words = r"^Temporal gave no answer \(UNAVAILABLE: connection refused\)\. .*virtflow logs temporal"
    with pytest.raises(InfrastructureError, match=words):
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")
    for ending in (session(portal, error).end, lambda: session(portal, error).left(NOWHERE)):
        with pytest.raises(InfrastructureError, match=words):
            ending()


@pytest.mark.parametrize(
    "error",
    [RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b""), WorkflowUpdateRPCTimeoutOrCancelledError()],
)
def test_a_temporal_that_was_killed_is_asked_again(
    portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(temporal, "PAUSE", timedelta())
    failures = [error, error]

    class Handle:
        async def execute_update(self, *_: object, **options: object) -> list[str]:
            if failures:
                raise failures.pop()
            return [str(options["id"])]

    asking = conftest.Session(portal, cast(WorkflowHandle[Any, list[str]], Handle()), ORDER)
    [update_id] = asking.ask(Scenario.list_virtual_machines, "namespace")
    assert (failures, update_id[:5]) == ([], "000-1")


@pytest.mark.parametrize(
    ("ended_by", "verdict", "words"),
    [
        (FailureType.CANCELLED, CancelledError, "This scenario was cancelled."),
        (FailureType.ENDED, InfrastructureError, "nobody spoke to it for too long."),
    ],
)
def test_a_step_of_a_scenario_that_is_undone_hears_why(
    portal: BlockingPortal,
    monkeypatch: pytest.MonkeyPatch,
    ended_by: FailureType,
    verdict: type[VirtflowError],
    words: str,
) -> None:
    monkeypatch.setattr(FailingHandle, "ended_by", ended_by)
    error = RPCError("workflow execution already completed", RPCStatusCode.NOT_FOUND, b"")
    with pytest.raises(VirtflowError, match=words) as raised:
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")
    assert type(raised.value) is verdict


@pytest.mark.parametrize(
    "error",
    [
        RPCError("workflow update was aborted by closing workflow", RPCStatusCode.NOT_FOUND, b""),
        WorkflowUpdateFailedError(
            ApplicationError("The Workflow completed before.", type="AcceptedUpdateCompletedWorkflow")
        ),
    ],
)
def test_a_step_of_a_scenario_that_was_terminated_hears_so(
    portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(FailingHandle, "status", WorkflowExecutionStatus.TERMINATED)
    with pytest.raises(CancelledError, match=r"This scenario was cancelled\."):
        session(portal, error).ask(Scenario.list_virtual_machines, "namespace")


def test_the_end_of_a_scenario_that_has_ended_is_no_error(portal: BlockingPortal) -> None:
    gone = RPCError("workflow execution already completed", RPCStatusCode.NOT_FOUND, b"")
    session(portal, gone).end()
    refused = RPCError("not you", RPCStatusCode.PERMISSION_DENIED, b"")
    with pytest.raises(InfrastructureError, match="PERMISSION_DENIED"):
        session(portal, refused).end()


def test_what_a_session_left_that_was_terminated_is_swept_up(
    portal: BlockingPortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[tuple[Path, str]] = []

    async def sweep(kubeconfig: Path, selector: str) -> list[str]:
        swept.append((kubeconfig, selector))
        return ["Namespace a is there: held"]

    monkeypatch.setattr(conftest, "sweep", sweep)
    ended = session(portal, WorkflowFailureError(cause=TerminatedError("a test")))
    assert ended.left(NOWHERE) == ["Namespace a is there: held"]
    assert swept == [(NOWHERE, "virtflow.io/scenario=s1")]


def test_a_silent_worker_is_infrastructure(portal: BlockingPortal) -> None:
    with pytest.raises(InfrastructureError, match=r"^The worker gave no answer for 45 minutes\."):
        session(portal, TimeoutError()).ask(Scenario.list_virtual_machines, "namespace")
    with pytest.raises(InfrastructureError, match=r"^The worker gave no answer for 15 minutes\."):
        session(portal, TimeoutError()).left(NOWHERE)
