"""Which failures are worth another try.

A server that is away, busy or lost a race is: those errors pass through, and the retry policy applies. A
refusal will be the same the next time: it becomes a non-retryable failure that carries the server's words.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from virtflow.kube import KubeError

__all__ = ["gave_up", "refusals_are_final"]

WORTH_ANOTHER_TRY = frozenset({408, 409, 429})


@contextmanager
def refusals_are_final() -> Iterator[None]:
    """Within this block a refusal by the kube-apiserver fails the activity for good."""
    try:
        yield
    except KubeError as error:
        if error.code >= 500 or error.code in WORTH_ANOTHER_TRY:
            raise
        raise ApplicationError(str(error), type="Refused", non_retryable=True) from error


def gave_up(message: str) -> ApplicationError:
    """A wait that ran out: waiting again would take as long and is not what the scenario allows."""
    return ApplicationError(message, type="TimedOut", non_retryable=True)
