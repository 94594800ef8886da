"""Which failures are worth another try.

A server that is away, busy or lost a race is: those errors pass through, and the retry policy applies. A
refusal will be the same the next time: it becomes a non-retryable failure that carries the server's words. So does
a wait that ran out. Our own code that stumbles is named in the retry policy itself. docs/DURABILITY.md has it all.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from virtflow.kube import KubeError
from workflows.failures import FailureType, failure

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
        raise failure(FailureType.REFUSED, str(error)) from error


def gave_up(message: str) -> ApplicationError:
    """A wait that ran out: waiting again would take as long and is not what the scenario allows."""
    return failure(FailureType.TIMED_OUT, message)
