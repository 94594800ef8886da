"""What the exit code of `virtflow` says, so that CI can tell a failure of what is tested from all the others.

0, 1 and 2 mean what they mean everywhere, 70 what it means in sysexits.h, 130 is a shell's word for Ctrl-C.
"""

from collections.abc import Collection
from enum import IntEnum

__all__ = ["ExitCode", "worst"]


class ExitCode(IntEnum):
    """A value and, as `meaning`, what it tells a user."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    PASSED = 0, "passed"
    FAILED = 1, "a scenario failed"
    BAD_INPUT = 2, "a feature, an option or a setting is wrong, and nothing was started"
    INFRASTRUCTURE = 3, "toolchain, cluster, Temporal, worker or load generator did not work"
    LEFT_BEHIND = 4, "all passed, but cleanup left something behind"
    SLO_MISSED = 5, "what was tested works, but more slowly than it promises"
    TIMED_OUT = 6, "what a scenario waited for did not come about in time"
    BUG = 70, "virtflow itself failed"
    INTERRUPTED = 130, "Ctrl-C, SIGTERM or SIGHUP, or a scenario was cancelled in Temporal"


# Infrastructure is ahead of a failure: on a cluster that is not well, a failed scenario says little. What was found
# is ahead of what nobody looked at any more: a scenario that was cancelled says nothing.
_BY_WEIGHT = (
    ExitCode.BUG,
    ExitCode.INFRASTRUCTURE,
    ExitCode.BAD_INPUT,
    ExitCode.FAILED,
    ExitCode.TIMED_OUT,
    ExitCode.SLO_MISSED,
    ExitCode.INTERRUPTED,
    ExitCode.LEFT_BEHIND,
)


def worst(codes: Collection[ExitCode]) -> ExitCode:
    """The one of a run with all these; without any it has passed."""
    return min(codes, key=_BY_WEIGHT.index, default=ExitCode.PASSED)
