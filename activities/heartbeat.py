"""An activity that waits must heartbeat, or it never hears that it was cancelled or that its server is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from temporalio import activity

__all__ = ["heartbeating"]

EVERY = 5.0


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Heartbeat in the background of this block."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(EVERY)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
