"""Whether the kube-apiserver is ready, as everybody may ask at /readyz.

It is asked once a second at most, however many want to know: who has no token is not to send it a request with each
that they send the gateway.
"""

import asyncio
import time
from datetime import timedelta

from clusters.gateway.upstream import Upstream

__all__ = ["Readiness"]

TIMEOUT = timedelta(seconds=2)
LIFETIME = timedelta(seconds=1)


class Readiness:
    """The kube-apiserver's latest answer. Those who ask while it is awaited share it, be it one or none."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._asked = 0.0
        self._answer: asyncio.Task[int] | None = None

    async def code(self) -> int:
        """The HTTP code of its /readyz. Raises what is raised where there was no answer."""
        if self._answer is None or (
            self._answer.done() and time.monotonic() - self._asked >= LIFETIME.total_seconds()
        ):
            self._asked = time.monotonic()
            self._answer = asyncio.create_task(self._ask())
        # Whoever leaves does not take the others' answer with them.
        return await asyncio.shield(self._answer)

    async def _ask(self) -> int:
        return (await self._upstream.send("readiness", "GET", "/readyz", timeout=TIMEOUT)).code
