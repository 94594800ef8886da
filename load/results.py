"""What a run was asked and what came of it: its plan, and its log, a line of JSON a second.

Most lines are one window: how many users there were, how many requests ended, which way they failed, and a
histogram of how long the answered ones took. Histograms add up, so that the percentile of any stretch of a
run is computed from its requests and never averaged from percentiles.

What a percentile covers: every request that ended, a failed one counting as slower than any answer. One that
falls among the failures is None, for no time can be promised there. A percentile of answers only would look
better the more requests fail. It still says nothing of requests never sent because users were waiting for
answers: users are a closed loop, so compare the rate with the planned one, too.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from virtflow.percentiles import rank_of

__all__ = [
    "Ending",
    "Latencies",
    "LoadPlan",
    "LoadProgress",
    "LoadResult",
    "RunLog",
    "latencies_of",
]


@dataclass(frozen=True)
class LoadPlan:
    """What to send where.

    `users` arrive over `ramp`, stay for `hold`, and each sends `rate` requests a second at most, fewer while
    it waits for an answer. After `requests_per_connection` requests a user closes its connection and opens
    another, because a balancer of connections gives new guests nothing else.
    """

    url: str
    users: int
    ramp: timedelta
    hold: timedelta
    rate: float = 1.0
    requests_per_connection: int = 10

    def __post_init__(self) -> None:
        counts = self.users >= 1 and self.requests_per_connection >= 1 and self.rate > 0
        if not counts or self.ramp < timedelta() or self.hold < timedelta():
            raise ValueError(f"users, rate and requests a connection must be above 0, no time below: {self}")

    def to_json(self) -> str:
        times = {"ramp": self.ramp.total_seconds(), "hold": self.hold.total_seconds()}
        return json.dumps({**asdict(self), **times})

    @classmethod
    def from_json(cls, text: str) -> "LoadPlan":
        fields = json.loads(text)
        times = {name: timedelta(seconds=fields[name]) for name in ("ramp", "hold")}
        return cls(**{**fields, **times})


@dataclass(frozen=True)
class Latencies:
    """Percentiles over `n` requests that ended, `failed` of which count as slower than any answer."""

    n: int
    failed: int
    p50: timedelta | None
    p95: timedelta | None
    p99: timedelta | None


@dataclass(frozen=True)
class LoadProgress:
    """One window of a run, about a second long; `time` is its end, `elapsed` since the run began."""

    time: datetime
    elapsed: timedelta
    length: timedelta
    users: int
    answered_ms: Mapping[int, int] = field(repr=False)
    """How many requests were answered in so many milliseconds."""
    failures: Mapping[str, int]
    """How many failed in which way: "HTTP 503", or the name of a client error."""

    @property
    def requests(self) -> int:
        return sum(self.answered_ms.values()) + sum(self.failures.values())

    @property
    def rps(self) -> float:
        """Requests that ended a second, failed ones included."""
        return self.requests / self.length.total_seconds() if self.length else 0.0

    @property
    def latencies(self) -> Latencies:
        return latencies_of([self])


@dataclass(frozen=True)
class LoadResult:
    """A whole run. `latencies` is over all of it; for a stretch use `latencies_of` on some `windows`."""

    plan: LoadPlan
    windows: tuple[LoadProgress, ...]
    started: int
    """Users that came."""
    stopped: bool
    """Ended by `stop_load`, before its time."""
    resumed: bool
    """Taken up from an earlier caller; its windows from before that are here, too."""
    restarted: bool
    """An earlier start of this run died unfinished; nothing of that is here."""
    waited: timedelta
    """For its turn: since it arrived or, of a run begun again, since Locust was back."""

    @property
    def requests(self) -> int:
        return sum(window.requests for window in self.windows)

    @property
    def failures(self) -> Mapping[str, int]:
        return sum((Counter(window.failures) for window in self.windows), Counter())

    @property
    def latencies(self) -> Latencies:
        return latencies_of(self.windows)

    @property
    def never_started(self) -> int:
        """Users of the plan that never came."""
        return self.plan.users - self.started


class Ending(StrEnum):
    PLANNED = "planned"
    STOPPED = "stopped"
    WITHDRAWN = "withdrawn"
    """Nobody wants its result: such a run is none, and the same plan may begin anew."""


class RunLog:
    """The log of a run, read as it grows.

    It is only ever added to. A line that says that the run begins makes void what stands before it: an earlier
    start that died, or was withdrawn.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0
        """Bytes that were read, up to the end of a line."""
        self._forget()

    def _forget(self) -> None:
        self.waited: timedelta | None = None
        """None until the run begins."""
        self.restarted = False
        self.windows: list[LoadProgress] = []
        self.error = ""
        """Why it could not be carried out."""
        self.ending: Ending | None = None
        self.started = 0
        """Users that ever came; known at the end."""

    @property
    def finished(self) -> bool:
        return bool(self.error) or self.ending in (Ending.PLANNED, Ending.STOPPED)

    def read(self) -> None:
        """Take in the lines added since the last call; one without its end yet is left for the next.

        Raises ValueError, KeyError or TypeError for a whole line that no runner of ours wrote.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self.size)
            whole, newline, _ = log.read().rpartition(b"\n")
        self.size += len(whole) + len(newline)
        for line in map(json.loads, whole.splitlines()):
            if "waited" in line:
                self._forget()
                self.waited, self.restarted = timedelta(seconds=line["waited"]), line["restarted"]
            elif "error" in line:
                self.error = line["error"]
            elif "ending" in line:
                self.ending, self.started = Ending(line["ending"]), line["started"]
            else:
                self.windows.append(window_of(line))


def window_of(line: dict[str, Any]) -> LoadProgress:
    return LoadProgress(
        time=datetime.fromtimestamp(line["time"], UTC),
        elapsed=timedelta(seconds=line["elapsed"]),
        length=timedelta(seconds=line["length"]),
        users=line["users"],
        answered_ms={int(duration): number for duration, number in line["answered_ms"].items()},
        failures=line["failures"],
    )


def latencies_of(windows: Iterable[LoadProgress]) -> Latencies:
    """Percentiles (nearest rank, in whole milliseconds) over all requests of some windows."""
    answered: Counter[int] = Counter()
    failed = 0
    for window in windows:
        answered.update(window.answered_ms)
        failed += sum(window.failures.values())
    n = answered.total() + failed
    ascending = sorted(answered.items())

    def percentile(percent: int) -> timedelta | None:
        rank = rank_of(n, percent)
        for duration, number in ascending:
            rank -= number
            if rank <= 0:
                return timedelta(milliseconds=duration)
        return None

    return Latencies(n, failed, percentile(50), percentile(95), percentile(99))
