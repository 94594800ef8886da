"""One load as the runner carries it out: who serves it, what it writes, when it ends.

All of a run is its own, its counters and its log above all: runs share nothing but the pool of users.
"""

import contextlib
import json
import logging
import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from gevent.event import Event

from load.files import Pulse, RunFiles
from load.results import Ending, LoadPlan, RunLog
from load.turns import first_requests

__all__ = ["TICK", "Run"]

logger = logging.getLogger(__name__)

TICK = 0.25
WINDOW = 1.0
ROUNDING = 1e-6

CALLER_LIMIT = timedelta(minutes=2)
"""A caller that has shown no sign of life for so long is gone, and nobody wants its load. Enough for Temporal to
notice that a worker died and for another to take the load up."""


class Run:
    """Begins when it is told to, and is then to be ticked until it has ended."""

    def __init__(self, files: RunFiles) -> None:
        """Raises ValueError, KeyError or TypeError if the folder holds what this version does not write."""
        earlier = RunLog(files.log)
        earlier.read()
        self.finished = earlier.finished
        """Before this runner saw it: there is nothing left to do."""
        self.restarted = earlier.waited is not None and (earlier.ending is None or earlier.started > 0)
        self.name = files.folder.name
        self.arrived = files.plan.stat().st_mtime
        # What a start that died has taken was no waiting.
        self._waits_since = time.time() if self.restarted else self.arrived
        self.plan = LoadPlan.from_json(files.plan.read_text())
        self._caller = Pulse(files.caller)
        self.over = Event()
        """Set when no user is to send another request."""
        self._files = files
        self._whole_log = earlier.size
        self._ending = Ending.PLANNED
        self._error = ""
        self._serving = self._users = self._started = 0
        self._answered: Counter[int] = Counter()
        self._failures: Counter[str] = Counter()

    def begin(self) -> None:
        if self._files.log.exists():
            # A runner that was killed may have left half a line, which the next would be glued to.
            os.truncate(self._files.log, self._whole_log)
        self._begun = self._written = time.monotonic()
        waited = max(0.0, time.time() - self._waits_since)
        self._write({"waited": waited, "restarted": self.restarted})
        self._lasts = (self.plan.ramp + self.plan.hold).total_seconds()
        self._firsts = first_requests(self.plan)
        logger.info("%s begins: %d users on %s, after %.1f s", self.name, self.plan.users, self.plan.url, waited)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    @property
    def deserted(self) -> bool:
        return self._caller.silence() > CALLER_LIMIT

    @property
    def withdrawn(self) -> bool:
        return self._ending is Ending.WITHDRAWN

    @property
    def taken_back(self) -> bool:
        return not self._files.plan.exists()

    @property
    def called_off(self) -> Ending | None:
        """Whether it is to end before its time."""
        if self.taken_back or self.deserted:
            return Ending.WITHDRAWN
        return Ending.STOPPED if self._files.stop.exists() else None

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """A user serves it in this block. What goes wrong in it is the run's error and not the user's end."""
        self._serving += 1
        try:
            yield
        except Exception:
            logger.exception("%s cannot go on", self.name)
            self._error = f"Locust's user raised an exception:\n{traceback.format_exc()}"
            self.over.set()
        finally:
            self._serving -= 1

    def requests_due(self, index: int) -> Iterator[int]:
        """Waits for the moment of each request of one user, and gives their numbers, from 1 on, until the end.

        After a request that took longer than the pause the next is due at once, and those after it by the usual
        pause. What was missed meanwhile is not made up for: all users would fire at the same moment ever after.
        """
        # Since the begin, and not by the clock: adding to its large numbers rounds, and would now and then bring the
        # request that is due at the very end into the load.
        due, number = self._firsts[index], 0
        while not self._ends_before(min(due, self._lasts)) and due < self._lasts - ROUNDING:
            if number == 0:
                self._users += 1
                self._started += 1
            number += 1
            yield number
            due = max(self._elapsed, due + 1 / self.plan.rate)
        self._users -= number > 0

    def _ends_before(self, moment: float) -> bool:
        # gevent may never wake one who waits for an event that is set: it forgets those who come while it is about to
        # tell the others, if all of the others leave before.
        over: bool = self.over.is_set() or self.over.wait(max(0.0, moment - self._elapsed))
        return over

    def count(self, response_time: float, exception: BaseException | None, status: int) -> None:
        """A request has ended, after so many milliseconds."""
        if exception is None:
            self._answered[round(response_time)] += 1
        else:
            # An answer that broke off has a good status, too.
            self._failures[f"HTTP {status}" if status >= 400 else type(exception).__name__] += 1

    def tick(self) -> bool:
        """Write what is to be written; whether the run has ended, with its last request."""
        if not self.over.is_set() and (ending := self.called_off or self._planned_end):
            self._ending = ending
            self.over.set()
        ended = self.over.is_set() and self._serving == 0
        # Half a tick of room, or a window that is a moment short would last another tick.
        if ended or time.monotonic() - self._written > WINDOW - TICK / 2:
            self._write_window()
        if ended:
            end = {"error": self._error} if self._error else {"ending": self._ending, "started": self._started}
            self._write(end)
            logger.info("%s ends: %s", self.name, self._error or self._ending)
        return ended

    def refuse(self, error: str) -> None:
        """It has never begun, and never will."""
        self._write({"error": error})
        logger.info("%s is refused: %s", self.name, error)

    @property
    def _planned_end(self) -> Ending | None:
        return Ending.PLANNED if self._elapsed >= self._lasts else None

    def _write_window(self) -> None:
        now = time.monotonic()
        self._write(
            {
                "time": time.time(),
                "elapsed": now - self._begun,
                "length": now - self._written,
                "users": self._users,
                "answered_ms": self._answered,
                "failures": self._failures,
            }
        )
        self._written = now
        self._answered, self._failures = Counter(), Counter()

    def _write(self, line: dict[str, Any]) -> None:
        # A folder that was removed wants no result. Of a killed runner, at most the last line is not whole.
        with contextlib.suppress(FileNotFoundError), self._files.log.open("ab", buffering=0) as log:
            log.write(json.dumps(line).encode() + b"\n")
