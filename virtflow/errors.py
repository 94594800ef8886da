"""The errors a user is meant to read, and the exit code each leads to.

VirtflowError             1    what was tried did not work
 ├─ InputError            2    a setting, an argument
 │   └─ FeatureError           tests.e2e.check
 ├─ InfrastructureError   3    Temporal, the worker, a server that stays away
 │   ├─ ToolchainError         clusters.local.toolchain
 │   ├─ ClusterError           clusters
 │   └─ LoadError              load
 ├─ LeftBehindError       4    cleanup
 ├─ SloMissedError        5    a step that holds a time against what was promised
 ├─ TimedOutError         6    a step that waited
 ├─ BugError              70   an activity or a workflow
 └─ CancelledError        130  a scenario, by somebody else than its runner

A failed assertion is what a step says about what is tested. Any other exception is a bug of virtflow itself. What
fails in a workflow becomes one of these in `virtflow.verdicts`.
"""

import os
import traceback
from pathlib import Path
from typing import ClassVar

from virtflow.exit_codes import ExitCode

__all__ = [
    "VERBOSE",
    "BugError",
    "CancelledError",
    "InfrastructureError",
    "InputError",
    "LeftBehindError",
    "SloMissedError",
    "TimedOutError",
    "VirtflowError",
    "explain",
]

VERBOSE = "VIRTFLOW_VERBOSE"
"""In the environment, so that it holds from the first moment, before any setting is known to be valid."""

ROOT = Path(__file__).parents[1]


class VirtflowError(Exception):
    """One clear paragraph: what happened, to what, why, and what to do. Shown without a traceback."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class InputError(VirtflowError):
    """What the user gave is wrong."""

    exit_code = ExitCode.BAD_INPUT


class InfrastructureError(VirtflowError):
    """What the tests stand on does not work; says nothing about what is tested."""

    exit_code = ExitCode.INFRASTRUCTURE


class LeftBehindError(VirtflowError):
    """Cleanup could not remove everything."""

    exit_code = ExitCode.LEFT_BEHIND


class SloMissedError(VirtflowError):
    """What was tested works, but more slowly than it promises."""

    exit_code = ExitCode.SLO_MISSED


class TimedOutError(VirtflowError):
    """What a step waited for did not come about in the time it has."""

    exit_code = ExitCode.TIMED_OUT


class BugError(VirtflowError):
    """virtflow's own code failed where its traceback is in a log: in the worker."""

    exit_code = ExitCode.BUG


class CancelledError(VirtflowError):
    """The scenario was cancelled, and says nothing about what is tested."""

    exit_code = ExitCode.INTERRUPTED


def explain(error: BaseException) -> str:
    """What a user is told of an error: one paragraph, or the traceback if they asked for it."""
    if os.environ.get(VERBOSE, "0") not in ("", "0"):
        return "".join(traceback.format_exception(error)).rstrip()
    if isinstance(error, VirtflowError | AssertionError):
        return str(error) or repr(error)
    # Not the repr: aiohttp's has the request's headers, bearer token included.
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"virtflow itself failed: {what}{_where(error)}. Type it again with -v (make: V=1) for the traceback."


def _where(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if ROOT in Path(frame.filename).parents]
    own = [frame for frame in frames if ".venv" not in Path(frame.filename).parts]
    return f" ({Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno})" if own else ""
