"""An activity that waits must heartbeat, or it never hears that it was cancelled or that its server is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from temporalio import activity

__all__ = ["HEARTBEAT_EVERY", "heartbeating"]

HEARTBEAT_EVERY = timedelta(seconds=3)
"""And so the longest that a cancellation takes to arrive. The worker must not throttle heartbeats to less."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat in the background of this block."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_EVERY.total_seconds())

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
