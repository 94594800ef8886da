"""How long a guest's work takes: a first-come first-served queue before a fixed number of cores.

No CPU is burnt. A request's cost is known when it arrives and nothing overtakes it, so the moment it starts
and the moment it ends are settled on arrival: the earliest core to come free takes it. That leaves no queue
to run, no timer in the model, and an account of busy core time that is exact at any moment. Times are
timedeltas since any fixed origin and never go backwards; being whole microseconds, their sums do not drift.
"""

import heapq
from collections import deque
from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Machine", "Meter", "Slot", "usage_figure"]

QUEUE_LIMIT = 100
"""Requests waiting for a core. On one core at 50 ms each this is 5 s of work: whoever came after that would
have given up before the answer, so that serving him would only keep the overload alive."""

FIGURE_STEP = 10
"""Millicores. Finer figures would differ at every reading and cost a write each time."""

IDLE_FIGURE = 10
"""Millicores of a guest without requests: a booted system is never quite still. It must not be 0, because
metrics-server drops a container whose cumulative CPU time is 0 and an autoscaler then knows nothing of its pod."""

ZERO = timedelta()


@dataclass(frozen=True)
class Slot:
    """The time one request holds a core."""

    start: timedelta
    end: timedelta


class Machine:
    """The cores of one guest and the work given to them."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        self._free_at = [ZERO] * cores
        self._starts: deque[timedelta] = deque()
        self._unfinished: list[tuple[timedelta, timedelta]] = []
        self._finished = ZERO

    def admit(self, now: timedelta, cost: timedelta) -> Slot | None:
        """Give a request that needs a core for `cost` (above 0) its slot; None if too many wait already."""
        self._retire(now)
        start = max(now, self._free_at[0])
        if start > now and self.waiting(now) >= QUEUE_LIMIT:
            return None
        slot = Slot(start, start + cost)
        heapq.heapreplace(self._free_at, slot.end)
        heapq.heappush(self._unfinished, (slot.end, slot.start))
        # First come, first served: starts only ever grow, so this stays sorted.
        self._starts.append(slot.start)
        return slot

    def waiting(self, now: timedelta) -> int:
        """How many admitted requests have no core yet."""
        while self._starts and self._starts[0] <= now:
            self._starts.popleft()
        return len(self._starts)

    def used(self, now: timedelta) -> timedelta:
        """Core time used so far, as a counter: work under way counts for as much of it as is done."""
        self._retire(now)
        return sum((now - start for _, start in self._unfinished if start < now), self._finished)

    def _retire(self, now: timedelta) -> None:
        while self._unfinished and self._unfinished[0][0] <= now:
            end, start = heapq.heappop(self._unfinished)
            self._finished += end - start


class Meter:
    """Average use of a machine between one reading and the next."""

    def __init__(self, machine: Machine, now: timedelta) -> None:
        self._machine = machine
        self._at, self._used = now, machine.used(now)

    def read(self, now: timedelta) -> float:
        """Cores busy on average since the last reading: 0 to the number of cores."""
        used = self._machine.used(now)
        window, work = now - self._at, used - self._used
        self._at, self._used = now, used
        return work / window if window else 0.0


def usage_figure(busy_cores: float) -> str:
    """The CPU quantity that stands for this many busy cores, e.g. 0.4471 -> "450m"."""
    millicores = round(busy_cores * 1000 / FIGURE_STEP) * FIGURE_STEP
    return f"{max(millicores, IDLE_FIGURE)}m"
