"""An activity that waits must heartbeat, or it never hears that it was cancelled or that its server is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from temporalio import activity

__all__ = ["HEARTBEAT_EVERY", "heartbeating", "pause"]

HEARTBEAT_EVERY = timedelta(seconds=3)
"""And so the longest that a cancellation takes to arrive, unless very many wait. The worker must not throttle
heartbeats to less."""
SELDOM = timedelta(seconds=10)
"""The longest pause, well within the activities' heartbeat time-out."""
A_SECOND = 20
"""Heartbeats of all activities together, as long as the longest pause allows: each is a write of Temporal's, and a
thousand waits that beat every three seconds would keep it from everything else."""

_beating = 0


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat in the background of this block."""
    global _beating  # noqa: PLW0603 - of the whole worker

    async def beat() -> None:
        while True:
            # First the pause: most waits are over before it is, and cost Temporal no write.
            await asyncio.sleep(pause(_beating).total_seconds())
            activity.heartbeat()

    _beating += 1
    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        _beating -= 1
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def pause(beating: int) -> timedelta:
    """Between the heartbeats of one activity, if so many have them."""
    return min(max(HEARTBEAT_EVERY, timedelta(seconds=beating / A_SECOND)), SELDOM)
