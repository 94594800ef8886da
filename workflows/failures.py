"""What a failure says: of which type it is, its root cause in one line, and how far a child had come.

An activity's failure reaches whoever asked in layers: the child workflow's, the activity's, its own. Of all that, one
line is for people, and one word, its type, for the exit code (`virtflow.verdicts`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum

from temporalio import exceptions
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    RetryState,
    TimeoutType,
    is_cancelled_exception,
)

__all__ = ["BUGS", "FailureType", "came_halfway", "failure", "halfway_at", "type_of", "words_of"]


class FailureType(StrEnum):
    """Why something failed, as far as it matters for what comes of it. The first six are final: never tried again."""

    REFUSED = "Refused"
    """A server said no: denied, not valid, not found where it must be. It would say the same again."""
    TIMED_OUT = "TimedOut"
    """A wait ran out. Waiting again would take as long, and is not what the scenario allows."""
    LOAD = "LoadError"
    """Locust could not carry the load out."""
    LOAD_TOO_SHORT = "LoadTooShort"
    """The load was over before what it was to lead to."""
    ENDED = "Ended"
    """A step came to a scenario that was being undone."""
    BUG = "Bug"
    """One of `BUGS`: code of ours that stumbles would stumble again."""
    CANCELLED = "Cancelled"
    """Neither a failure nor a success."""
    AWAY = "Away"
    """What was tried again and again, until the time for all its tries was over; or a program that should be back."""
    OTHER = "Other"


BUGS = (
    "AssertionError",
    "AttributeError",
    "IndexError",
    "KeyError",
    "NameError",
    "NotImplementedError",
    "RecursionError",
    "TypeError",
    "UnboundLocalError",
    "ValueError",
    "ZeroDivisionError",
)
"""Errors by name, which is what Temporal knows of them: no subclass of these is meant."""

HALFWAY = "Halfway"
NO_WORDS = "Application error"
"""The SDK's own, for an error without any."""
TYPES: dict[str, FailureType] = {each.value: each for each in FailureType}

SILENCE: dict[int, str] = {
    TimeoutType.START_TO_CLOSE: "took longer than one try may",
    TimeoutType.SCHEDULE_TO_START: "was begun by no worker",
    TimeoutType.SCHEDULE_TO_CLOSE: "did not end in the time that all its tries have",
    TimeoutType.HEARTBEAT: "was with a worker that fell silent",
}


def failure(type: FailureType, message: str) -> ApplicationError:  # noqa: A002  as ApplicationError calls it
    """One that is final."""
    return ApplicationError(message, type=type, non_retryable=True)


def type_of(error: BaseException) -> FailureType:
    """Of its root cause."""
    layers = _layers(error)
    if any(is_cancelled_exception(layer) for layer in layers):
        return FailureType.CANCELLED
    if isinstance(layers[-1], exceptions.TimeoutError) or _ran_out(layers):
        return FailureType.AWAY
    if _kind(layers[-1]) in BUGS:
        return FailureType.BUG
    return TYPES.get(_kind(layers[-1]), FailureType.OTHER)


def words_of(error: BaseException) -> str:
    """What its root cause says; where those are a program's words and not meant for people, with what they are of."""
    layers = _layers(error)
    cause, activity = layers[-1], _activity_in(layers)
    what = f"Activity {activity.activity_type}" if activity else "It"
    if isinstance(cause, exceptions.TimeoutError):
        return f"{what} {SILENCE.get(cause.type or 0, 'ran out of time')}."
    words = (cause.message if isinstance(cause, ApplicationError) else str(cause)).replace(NO_WORDS, "")
    named = ": ".join(filter(None, (_kind(cause), words)))
    if _ran_out(layers):
        return f"{what} was tried again and again until its time was over. The last try: {named}"
    if _kind(cause) in BUGS:
        return f"{what} failed: {named}"
    return words or named


def _layers(error: BaseException) -> list[BaseException]:
    """From the outermost to the root cause."""
    layers = [error]
    while cause := getattr(layers[-1], "cause", None):
        if isinstance(layers[-1], ApplicationError) and layers[-1].type != HALFWAY:
            break
        layers.append(cause)
    return layers


def _activity_in(layers: list[BaseException]) -> ActivityError | None:
    return next((layer for layer in reversed(layers) if isinstance(layer, ActivityError)), None)


def _ran_out(layers: list[BaseException]) -> bool:
    activity = _activity_in(layers)
    return activity is not None and activity.retry_state in (
        RetryState.TIMEOUT,
        RetryState.MAXIMUM_ATTEMPTS_REACHED,
    )


def _kind(cause: BaseException) -> str:
    return (cause.type or "") if isinstance(cause, ApplicationError) else type(cause).__name__


@contextmanager
def halfway_at(moment: datetime) -> Iterator[None]:
    """Let a failure of this block say when the block began: all that a parent hears of its child is its end."""
    try:
        yield
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        raise ApplicationError(words_of(error), moment.isoformat(), type=HALFWAY, non_retryable=True) from error


def came_halfway(error: BaseException) -> datetime | None:
    """When the child that failed by this error had come halfway; None if it had not."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, ApplicationError) and cause.type == HALFWAY:
        return datetime.fromisoformat(cause.details[0])
    return None
