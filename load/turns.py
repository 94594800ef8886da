"""Whose turn it is, and when each user of a load sends its first request. No clock, no I/O, no Locust.

The turns are in the order of arrival and nobody overtakes, not even a load that would fit into the room there is:
a big one would otherwise wait as long as small ones come. A load keeps room for all its users from its beginning
to its end, also while they arrive, so that it never finds the room taken that its plan counts on.
"""

import math
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from load.results import LoadPlan

__all__ = ["Turns", "first_requests"]

T = TypeVar("T", bound=Hashable)

GOLDEN = (math.sqrt(5) - 1) / 2


class Turns(Generic[T]):
    """Room for so many users, and the loads that have or await it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._waiting: deque[tuple[T, int]] = deque()
        self._admitted: dict[T, int] = {}

    @property
    def taken(self) -> int:
        return sum(self._admitted.values())

    def arrive(self, load: T, users: int) -> None:
        """Raises ValueError for a load that no room would ever be enough for."""
        if users > self.room:
            raise ValueError(f"{users} users, and room for {self.room}")
        self._waiting.append((load, users))

    def admit(self) -> list[T]:
        """The loads whose turn has come since the last call, in the order of their arrival."""
        admitted = []
        while self._waiting and self.taken + self._waiting[0][1] <= self.room:
            load, users = self._waiting.popleft()
            self._admitted[load] = users
            admitted.append(load)
        return admitted

    def leave(self, load: T) -> None:
        """It has ended, or does not want to wait any longer."""
        if self._admitted.pop(load, None) is None:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != load)


def first_requests(plan: LoadPlan) -> list[float]:
    """When each user sends its first request, in seconds since its load began.

    They arrive evenly over the ramp. Each then waits, a second at most, for its own moment within the second (or
    within its period, if that is shorter), because users that arrive 1 s apart would all fire at one moment ever
    after. The moments divide the second evenly, and the order they are given out in spreads those, too, who are
    there while others have yet to come. No chance, which would make two runs of one plan differ.
    """
    users, spread = plan.users, min(1.0, 1 / plan.rate)
    firsts = [0.0] * users
    # Multiples of the golden ratio fall into the widest gaps that the ones before have left.
    for place, index in enumerate(sorted(range(users), key=lambda index: index * GOLDEN % 1)):
        arrival = plan.ramp.total_seconds() * index / users
        moment = spread * place / users
        firsts[index] = arrival + (moment - arrival) % spread
    return firsts
