"""Reviews that may be used again: a good answer of the kube-apiserver, for ten seconds, and never past its token.

What it saves: two of the three requests that a request would cost the kube-apiserver. What it costs: a token that
was revoked, or a role that was taken away, may pass here for ten seconds more. With the kube-apiserver's own ten
(it remembers good tokens, too) a revoked token lives for twenty seconds at most. A role that was taken away does
not live at all: the kube-apiserver authorizes the forwarded request once more, as the tenant's own.

- Only answers that let somebody in are kept. Who was refused may be let in a moment later, and asks again.
- The age counts from when the question was sent: the answer is not older than that. It counts on the monotonic
  clock, the end of a token on the wall clock, which is the one that its `exp` speaks of.
- Keys are digests. Neither a token nor what it may do is kept.
- Those who ask the same at once wait for one answer. If whoever asked fails, or is cancelled, the next one asks.

cachetools has a cache with a lifetime, but it knows one clock and no flights. Beside the check of the second clock
and the locks, what it would bring is the order of an OrderedDict.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Generic, TypeVar

from clusters.gateway.limits import Turns

__all__ = ["LIFETIME", "Review", "ReviewCache"]

LIFETIME = timedelta(seconds=10)
"""How long a review is used. The evidence of a request looks as far back."""
SIZE = 10_000
"""Reviews of either kind: some ten megabytes."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Review(Generic[Answer]):
    """A positive answer, the Audit-ID of the question, and until when it holds (seconds since 1970)."""

    answer: Answer
    audit_id: str
    expires: float = inf


class ReviewCache(Generic[Answer]):
    """The latest positive reviews of one kind. The clocks are parameters for the tests' sake."""

    def __init__(
        self,
        *,
        size: int = SIZE,
        lifetime: timedelta = LIFETIME,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._size = size
        self._lifetime = lifetime.total_seconds()
        self._monotonic = monotonic
        self._wall = wall
        self._reviews: OrderedDict[bytes, tuple[float, Review[Answer]]] = OrderedDict()
        self._asking = Turns()

    async def get(self, key: bytes, ask: Callable[[], Awaitable[Review[Answer]]]) -> Review[Answer]:
        """The review under this key; `ask` makes it where there is none that may be used, and raises a refusal."""
        if review := self._usable(key):
            return review
        async with self._asking.of(key):
            if review := self._usable(key):
                return review
            asked = self._monotonic()
            review = await ask()
            self._reviews[key] = asked, review
            self._reviews.move_to_end(key)
            if len(self._reviews) > self._size:
                self._reviews.popitem(last=False)
            return review

    def knows(self, key: bytes) -> bool:
        """Whether it was answered with yes before, be it too long ago to be used."""
        return key in self._reviews

    def _usable(self, key: bytes) -> Review[Answer] | None:
        asked, review = self._reviews.get(key, (0.0, None))
        if review is None or self._monotonic() - asked >= self._lifetime or self._wall() >= review.expires:
            return None
        self._reviews.move_to_end(key)
        return review
