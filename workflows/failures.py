"""What a failure says: its root cause in one place, and how far a child had come that failed halfway."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

__all__ = ["came_halfway", "halfway_at", "root_cause"]

HALFWAY = "Halfway"


def root_cause(error: BaseException) -> str:
    """The activity's own words, without the layers a workflow wraps them in."""
    while not isinstance(error, ApplicationError) and (cause := getattr(error, "cause", None)):
        error = cause
    return error.message if isinstance(error, ApplicationError) else str(error)


@contextmanager
def halfway_at(moment: datetime) -> Iterator[None]:
    """Let a failure of this block say when the block began: all that a parent hears of its child is its end."""
    try:
        yield
    except FailureError as error:
        if is_cancelled_exception(error):
            raise
        raise ApplicationError(root_cause(error), moment.isoformat(), type=HALFWAY, non_retryable=True) from error


def came_halfway(error: BaseException) -> datetime | None:
    """When the child that failed by this error had come halfway; None if it had not."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, ApplicationError) and cause.type == HALFWAY:
        return datetime.fromisoformat(cause.details[0])
    return None
