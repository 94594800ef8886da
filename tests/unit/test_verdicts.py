"""What a failure that comes out of a workflow is: its type, its words, its exit code."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio import exceptions
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    RetryState,
    TimeoutType,
)

from virtflow.errors import BugError, CancelledError, InfrastructureError, TimedOutError, VirtflowError
from virtflow.exit_codes import ExitCode
from virtflow.verdicts import VERDICTS, verdict_on
from workflows.failures import BUGS, HALFWAY, FailureType, failure, type_of, words_of


def because(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def of_activity(cause: BaseException, state: RetryState = RetryState.NON_RETRYABLE_FAILURE) -> BaseException:
    error = ActivityError(
        "Activity task failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="await_running",
        activity_id="",
        retry_state=state,
    )
    return because(error, cause)


def of_child(cause: BaseException) -> BaseException:
    fields: dict[str, Any] = {"namespace": "", "workflow_id": "", "run_id": "", "workflow_type": ""}
    error = ChildWorkflowError("Child failed", **fields, initiated_event_id=1, started_event_id=2, retry_state=None)
    return because(error, cause)


def halfway(cause: BaseException) -> BaseException:
    return because(ApplicationError("", "2026-11-23T10:00:00", type=HALFWAY, non_retryable=True), cause)


def timeout(kind: TimeoutType) -> BaseException:
    return exceptions.TimeoutError("activity timeout", type=kind, last_heartbeat_details=[])


@pytest.mark.parametrize(
    ("cause", "error", "words"),
    [
        (failure(FailureType.REFUSED, "No such machine."), VirtflowError, "No such machine."),
        (failure(FailureType.TIMED_OUT, "It did not run."), TimedOutError, "It did not run."),
        (failure(FailureType.LOAD, "Locust hangs."), InfrastructureError, "Locust hangs."),
        (
            ApplicationError("'foot'", type="KeyError"),
            BugError,
            "Activity await_running failed: KeyError: 'foot'. This is a fault of virtflow's own code: "
            "`virtflow logs worker` has the traceback.",
        ),
        (exceptions.CancelledError("cancelled"), CancelledError, "This scenario was cancelled."),
        (
            timeout(TimeoutType.HEARTBEAT),
            InfrastructureError,
            "Activity await_running was with a worker that fell silent. `virtflow status` shows what does not run.",
        ),
        (ApplicationError("What is this?", type="Strange"), VirtflowError, "What is this?"),
    ],
)
def test_what_failed_in_an_activity_has_its_words_and_its_code(
    cause: BaseException, error: type[VirtflowError], words: str
) -> None:
    for layered in (of_activity(cause), of_child(of_activity(cause)), of_child(halfway(of_activity(cause)))):
        verdict = verdict_on(layered)
        assert type(verdict) is error
        assert str(verdict) == words


@pytest.mark.parametrize("state", [RetryState.TIMEOUT, RetryState.MAXIMUM_ATTEMPTS_REACHED])
@pytest.mark.parametrize(
    ("last", "words"),
    [
        (ApplicationError("The gateway answered 503"), "The gateway answered 503"),
        (ApplicationError("", type="TimeoutError"), "TimeoutError"),
        (ApplicationError("refused", type="ClientConnectorError"), "ClientConnectorError: refused"),
    ],
)
def test_what_was_tried_until_its_time_was_over_is_infrastructure(
    state: RetryState, last: ApplicationError, words: str
) -> None:
    verdict = verdict_on(of_activity(last, state))
    assert isinstance(verdict, InfrastructureError)
    assert str(verdict).startswith(
        f"Activity await_running was tried again and again until its time was over. The last try: {words}. "
    )


def test_of_a_last_try_that_is_known_the_timeout_says_nothing() -> None:
    cause = because(timeout(TimeoutType.SCHEDULE_TO_CLOSE), ApplicationError("refused", type="KubeError"))
    assert words_of(of_activity(cause, RetryState.TIMEOUT)).endswith("The last try: KubeError: refused")


@pytest.mark.parametrize("name", BUGS)
def test_workflow_code_that_stumbles_is_a_bug(name: str) -> None:
    verdict = verdict_on(ApplicationError("oh", type=name))
    assert (type(verdict), verdict.exit_code) == (BugError, ExitCode.BUG)
    assert str(verdict).startswith(f"It failed: {name}: oh")


def test_every_type_has_a_verdict() -> None:
    assert VERDICTS.keys() == set(FailureType)


layers = st.lists(st.sampled_from([of_child, halfway, of_activity]), max_size=5)


@given(layers, st.sampled_from([each for each in FailureType if each is not FailureType.OTHER]))
def test_layers_change_neither_type_nor_words(wrapped: list[Any], kind: FailureType) -> None:
    error: BaseException = failure(kind, "It rained.")
    for wrap in wrapped:
        error = wrap(error)
    assert (type_of(error), words_of(error)) == (kind, "It rained.")
