"""The listener to supervisord's events: `python -m clusters.supervisor.watch FOLDER`, run by supervisord itself.

supervisord starts again whatever lived for a few seconds, for ever: a program that dies a minute after each
start would be restarted all day. And nobody restarts supervisord. Both are settled here.
"""

import logging
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from supervisor import childutils

from clusters.endpoints import ClusterError
from clusters.supervisor.daemon import SUPERVISORD, Supervisor
from clusters.supervisor.record import Record

__all__ = ["CrashLoops", "Watch", "main"]

log = logging.getLogger(__name__)

TRIES = 5


class CrashLoops:
    """Tells a crash loop from bad luck: so many deaths within such a time."""

    deaths = 6
    within = timedelta(minutes=2)

    def __init__(self) -> None:
        self._times: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=self.deaths))

    def died(self, program: str, now: float) -> bool:
        """Whether this death makes it a loop; `now` in seconds of any clock that only goes forward."""
        times = self._times[program]
        times.append(now)
        is_loop = len(times) == self.deaths and now - times[0] <= self.within.total_seconds()
        if is_loop:
            times.clear()
        return is_loop


class Watch:
    """Turns supervisord's events into the record of each program's lives."""

    def __init__(self, supervisor: Supervisor, record: Record) -> None:
        self._supervisor = supervisor
        self._record = record
        self._lives = record.read()
        self._loops = CrashLoops()
        self._doomed: set[str] = set()

    def take(self, event: str, program: str) -> None:
        life = self._lives[program]
        match event:
            case "PROCESS_STATE_STARTING":
                life.given_up = ""
            case "PROCESS_STATE_FATAL":
                self._doomed.discard(program)
            # What was doomed may be started once more before it is stopped: only now it is over.
            case "PROCESS_STATE_STOPPED" if program in self._doomed:
                self._doomed.remove(program)
                life.given_up = f"it died {CrashLoops.deaths} times within {CrashLoops.within.total_seconds():.0f} s"
            case "PROCESS_STATE_EXITED" | "PROCESS_STATE_BACKOFF":
                life.restarts += 1
                # What died within seconds of its start (BACKOFF) is supervisord's own to give up.
                if event == "PROCESS_STATE_EXITED" and self._loops.died(program, time.monotonic()):
                    log.error("%s keeps dying: it is stopped", program)
                    self._doomed.add(program)
                    self._supervisor.stop_program(program)
        self._record.write(self._lives)

    def revive(self) -> None:
        log.error("supervisord is gone: starting it and everything else again")
        self._lives[SUPERVISORD].restarts += 1
        self._record.write(self._lives)
        for _ in range(TRIES):
            # Somebody's `up` may be starting it at the same moment: then the next try finds it.
            try:
                self._supervisor.revive()
            except ClusterError:
                log.exception("supervisord does not start")
            else:
                return


def events() -> Iterator[tuple[str, str]]:
    """Each event's name and its program, until supervisord is gone."""
    while True:
        try:
            headers, payload = childutils.listener.wait()
            yield headers["eventname"], childutils.get_headers(payload)["processname"]
            childutils.listener.ok()
        except (KeyError, OSError):
            # An empty line instead of headers, or nobody to answer to: the other end of the pipe is closed.
            return


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    watch = Watch(Supervisor(folder), Record(folder / "restarts.json"))
    for event, program in events():
        watch.take(event, program)
    watch.revive()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
