"""A work queue of object keys: what has changed is looked at again, each key by one worker at a time.

A key added many times before a worker comes to it is worked on once, which is what makes a reconciler that
looks at the present state, and not at the change, cheap under load. What failed comes back by itself, later
each time; a change meanwhile brings it back at once. Changes that come in swarms may be given a moment to gather.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta

from virtflow.kube import NO_ANSWER, Key, KubeError, describe

__all__ = ["WorkQueue", "is_lost_race"]

log = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[timedelta | None]]
"""Brings one object forward. A duration it returns is when to look again though nothing has changed."""

NOTHING = timedelta()
FIRST_BACKOFF, LAST_BACKOFF = timedelta(milliseconds=10), timedelta(seconds=20)
LAST_BACKOFF_OF_REFUSED = timedelta(minutes=1)
"""A quota or a webhook that has refused the same for so long will most likely go on to."""

FAILED_TEST = "the server rejected our request due to an error in our request"
"""What the kube-apiserver answers, with code 422, to a JSON patch whose `test` does not hold."""


class WorkQueue:
    """Call `add` from an informer's listener; `run` works until it is cancelled."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 8, gather: timedelta = NOTHING) -> None:
        """`gather`: at most how often `add_soon` has a key looked at."""
        self._name = name
        self._reconcile = reconcile
        self._workers = workers
        self._gather = gather
        self._gathering: dict[Key, bool] = {}
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._failures: Counter[Key] = Counter()
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key not in self._waiting:
            self._waiting.add(key)
            if key not in self._working:
                self._ready.put_nowait(key)

    def add_soon(self, key: Key) -> None:
        """At once the first time, and what follows closely together once more."""
        if key in self._gathering:
            self._gathering[key] = True
            return
        self.add(key)
        if self._gather:
            self._gathering[key] = False
            asyncio.get_running_loop().call_later(self._gather.total_seconds(), self._gathered, key)

    def _gathered(self, key: Key) -> None:
        if self._gathering.pop(key):
            self.add_soon(key)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._working.add(key)
            try:
                again = await self._reconcile(key)
            except Exception as error:  # a worker must outlive whatever one object does to it
                again = self._failed(key, error)
            else:
                del self._failures[key]
            self._working.discard(key)
            if key in self._waiting:
                self._ready.put_nowait(key)
            elif again is not None:
                loop = asyncio.get_running_loop()
                self._timers[key] = loop.call_later(again.total_seconds(), self.add, key)

    def _failed(self, key: Key, error: Exception) -> timedelta:
        is_refusal = isinstance(error, KubeError) and not is_lost_race(error)
        longest = LAST_BACKOFF_OF_REFUSED if is_refusal else LAST_BACKOFF
        backoff: timedelta = min(FIRST_BACKOFF * 2 ** min(self._failures[key], 20), longest)
        self._failures[key] += 1
        what = f"{self._name} {'/'.join(key)}"
        if isinstance(error, KubeError) and is_lost_race(error):
            log.debug("%s: %s, again in %s", what, error, backoff)
        elif isinstance(error, (KubeError, *NO_ANSWER)):
            log.warning("%s: %s, again in %s", what, describe(error), backoff)
        else:
            log.error("%s: again in %s", what, backoff, exc_info=error)
        return backoff


def is_lost_race(error: KubeError) -> bool:
    """Whether it only says that the cache was behind: someone else wrote, or deleted, first."""
    causes = (error.status.get("details") or {}).get("causes") or []
    return (
        error.code in (404, 409)
        or (error.code == 422 and error.message == FAILED_TEST)
        or any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
    )
