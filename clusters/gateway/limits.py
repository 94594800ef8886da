"""How much one caller may take of the gateway, so that there is room for the others.

Every bound is of what is under way, not of what comes in a second: what is slow is what piles up. Who comes beyond
it is told at once to come again, as the kube-apiserver does, and has cost nothing but that answer.

- A tenant's requests: a flood of one tenant's finds its own room full and nobody else's.
- Reading a large body, which takes up to two seconds of CPU: a thread's, so that the others' requests go on beside
  it, and one at a time of each tenant.
- TokenReviews of strangers, which is who sends a token that was never seen to be good. Without a bound, anybody who
  can reach the port could make the kube-apiserver check signatures. Who was let in before is no stranger, so a flood
  of forged tokens keeps out only those who come for the first time.
"""

import asyncio
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from weakref import WeakValueDictionary

from clusters.gateway.status import StatusError

__all__ = ["BODY_LIMIT", "REQUEST_LIMIT", "STOP_LIMIT", "STRANGERS", "TENANT_REQUESTS", "Rooms", "Turns", "too_many"]

REQUEST_LIMIT = timedelta(seconds=30)
"""For a request's reviews, its body and its answer by the kube-apiserver."""
BODY_LIMIT = timedelta(seconds=10)
"""For a request's body, a mebibyte at most; and, if it is large, for its turn to be read."""
STOP_LIMIT = REQUEST_LIMIT + timedelta(seconds=5)
"""For all that is under way to be answered, and the answers to be read, once the gateway is told to stop."""
TENANT_REQUESTS = 50
"""Of one tenant. Twenty tenants then have as many under way as the gateway has connections to the kube-apiserver."""
STRANGERS = 50
"""TokenReviews, of all strangers together."""
RETRY_AFTER = timedelta(seconds=1)


def too_many(message: str) -> StatusError:
    """429, in the kube-apiserver's way."""
    seconds = int(RETRY_AFTER.total_seconds())
    return StatusError(
        429,
        f"{message} Try again later.",
        details={"retryAfterSeconds": seconds},
        headers={"Retry-After": str(seconds)},
    )


class Turns:
    """One at a time for each; the others of it wait. A lock lives as long as somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: Hashable) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def __len__(self) -> int:
        return len(self._locks)


class Rooms:
    """Rooms with so many places each; `what` names to the caller what is under way in them."""

    def __init__(self, places: int, what: str) -> None:
        self._places = places
        self._what = what
        self._taken: Counter[str] = Counter()

    @contextmanager
    def place(self, room: str) -> Iterator[None]:
        """A place for as long as it takes. Raises StatusError 429 where all are taken."""
        if self._taken[room] >= self._places:
            raise too_many(f"{self._places} {self._what} are under way, which is as many as there may be.")
        self._taken[room] += 1
        try:
            yield
        finally:
            self._taken[room] -= 1
            if not self._taken[room]:
                del self._taken[room]
