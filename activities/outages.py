"""Programs of the cluster that are away for a while.

One activity does all of it, from the kill to the start: if two did, what dies between them would leave the program
away for ever. And its worker needs nothing of Kubernetes to start. The other one's waits until it has listed what
there is, which no kube-apiserver that was taken down would answer.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from temporalio import activity

from activities.heartbeat import heartbeating
from clusters.faults import CannotFailError, Programs
from virtflow.kube import NO_ANSWER, KubeClient
from workflows.failures import FailureType, failure
from workflows.fault_models import Outage, OutageEnded

__all__ = ["Outages"]

BACK_LIMIT = timedelta(seconds=90)
LOOK_EVERY = timedelta(milliseconds=100)


class Outages:
    """Acts on the cluster's own programs, through what keeps them."""

    def __init__(self, kube: KubeClient, programs: Programs) -> None:
        self._kube = kube
        self._programs = programs

    @activity.defn
    async def hold_down(self, outage: Outage) -> OutageEnded:
        """Take it down, bring it back when the time is over, and wait until the kube-apiserver is ready, too.

        Cancelled, bring it back at once. A retry counts from when the first try was asked for: its worker died.
        """
        info = activity.info()
        gone_at, until = datetime.now(UTC), info.scheduled_time + outage.lasts
        async with heartbeating():
            try:
                if info.attempt == 1 or datetime.now(UTC) < until:
                    with impossible_is_final():
                        await to_its_end(self._programs.kill, outage.program)
                    gone_at = datetime.now(UTC)
                    until = gone_at + outage.lasts if info.attempt == 1 else until
                    await asyncio.sleep((until - datetime.now(UTC)).total_seconds())
            finally:
                back_at = datetime.now(UTC)
                with impossible_is_final():
                    await to_its_end(self._programs.start, outage.program)
            await self._is_back(outage.program)
            await to_its_end(self._programs.wake_followers, outage.program)
            await self._is_back(outage.program)
        return OutageEnded(gone_at, back_at)

    @activity.defn
    async def await_down(self, outage: Outage) -> None:
        """Wait until it is away."""
        async with heartbeating():
            while True:
                if await asyncio.to_thread(self._programs.is_down, outage.program):
                    return
                await asyncio.sleep(LOOK_EVERY.total_seconds())

    @activity.defn
    async def bring_back(self, outage: Outage) -> None:
        """Whatever became of the outage, its program and what follows it run afterwards, and the kube-apiserver is
        ready."""
        async with heartbeating():
            try:
                await to_its_end(self._programs.start, outage.program)
            except CannotFailError:
                # Then nobody has taken it down.
                return
            await self._is_back(outage.program)
            # An outage that is cut short starts its program, and wakes nobody.
            if await asyncio.to_thread(self._programs.has_waited_for, outage.program):
                await to_its_end(self._programs.wake_followers, outage.program)
                await self._is_back(outage.program)

    async def _is_back(self, program: str) -> None:
        try:
            async with asyncio.timeout(BACK_LIMIT.total_seconds()):
                while True:
                    if await asyncio.to_thread(self._programs.runs, program) and await self._is_ready():
                        return
                    await asyncio.sleep(LOOK_EVERY.total_seconds())
        except TimeoutError:
            raise failure(
                FailureType.AWAY,
                f"{program} was taken down, started again, and {BACK_LIMIT.total_seconds():.0f} s later it does not "
                f"answer. `virtflow logs {program}` shows what it says.",
            ) from None

    async def _is_ready(self) -> bool:
        """Before it is ready it does not know its roles, and refuses what it would otherwise allow."""
        try:
            return (await self._kube.send("GET", "/readyz")).code == 200
        except NO_ANSWER:
            return False


async def to_its_end(act: Callable[[str], None], program: str) -> None:
    """In a thread. Cancelled, be so when it has ended: else it would go on beside what undoes it."""
    acting = asyncio.ensure_future(asyncio.to_thread(act, program))
    try:
        await asyncio.shield(acting)
    except asyncio.CancelledError:
        await asyncio.wait([acting])
        raise


@contextmanager
def impossible_is_final() -> Iterator[None]:
    """Within this block an act that this cluster has no means for fails the activity for good."""
    try:
        yield
    except CannotFailError as error:
        raise failure(FailureType.REFUSED, str(error)) from None
