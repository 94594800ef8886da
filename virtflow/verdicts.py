"""Whose fault a failed step is: a failure of Temporal's as the error that has the right exit code.

A workflow knows failures by type (`workflows.failures`), a user by exit code (`virtflow.exit_codes`); this is where
the one becomes the other, for whoever asked a workflow for something.
"""

from virtflow.errors import BugError, CancelledError, InfrastructureError, TimedOutError, VirtflowError
from workflows.failures import FailureType, type_of, words_of

__all__ = ["VERDICTS", "verdict_on"]

VERDICTS: dict[FailureType, type[VirtflowError]] = {
    FailureType.REFUSED: VirtflowError,
    FailureType.TIMED_OUT: TimedOutError,
    FailureType.LOAD: InfrastructureError,
    FailureType.LOAD_TOO_SHORT: TimedOutError,
    FailureType.ENDED: InfrastructureError,
    FailureType.BUG: BugError,
    FailureType.CANCELLED: CancelledError,
    FailureType.AWAY: InfrastructureError,
    FailureType.OTHER: VirtflowError,
}
"""A plain VirtflowError is about what is tested, as a step's failed assertion is."""

ADVICE = {
    FailureType.BUG: "This is a fault of virtflow's own code: `virtflow logs worker` has the traceback.",
    FailureType.AWAY: "`virtflow status` shows what does not run.",
}


def verdict_on(error: BaseException) -> VirtflowError:
    """What to raise, and tell, for a failed update or workflow."""
    kind = type_of(error)
    words = "This scenario was cancelled." if kind is FailureType.CANCELLED else words_of(error)
    return VERDICTS[kind](f"{words.rstrip('.')}. {ADVICE[kind]}" if kind in ADVICE else words)
