"""What a failure says: its root cause in one place, and how far a child had come that failed halfway."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

__all__ = ["came_halfway", "halfway_at", "root_cause", "words_of"]

HALFWAY = "Halfway"


def root_cause(error: BaseException) -> BaseException:
    """The activity's own error, without the layers that workflows wrap it in."""
    while cause := getattr(error, "cause", None):
        if isinstance(error, ApplicationError) and error.type != HALFWAY:
            break
        error = cause
    return error


def words_of(error: BaseException) -> str:
    """What its root cause says, without its type."""
    cause = root_cause(error)
    return cause.message if isinstance(cause, ApplicationError) else str(cause)


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
