"""Carrying out a plan: SIGKILL by pid, and how long it takes until the program is there again."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psutil

from clusters.endpoints import ClusterError
from clusters.local import ComponentStatus, LocalCluster
from virtflow.torture.plan import Kill
from virtflow.torture.runner import RUNNER, Runner

__all__ = ["Killed", "carry_out"]

RECOVERS_WITHIN = timedelta(seconds=120)
"""After supervisord's death, everything starts anew at the same time."""
POLL = timedelta(milliseconds=200)


@dataclass(frozen=True)
class Killed:
    """A kill that was carried out."""

    kill: Kill
    at: datetime
    back_after: timedelta
    """Until the supervisor called a new process of it running: for most, when it has lived for three seconds.
    Of a test runner, until its run was resumed and has ended."""


async def carry_out(
    cluster: LocalCluster, runner: Runner, plan: Sequence[Kill], show: Callable[[str], None]
) -> list[Killed]:
    """Kill as planned, and return when each victim runs again. Raises ClusterError if something does not."""
    returning: list[asyncio.Task[Killed]] = []
    try:
        for kill in plan:
            show(f"kill {kill.number} of {len(plan)}: {kill.victim}")
            if kill.recovered:
                # In a thread: the journeys are followed meanwhile.
                await asyncio.to_thread(cluster.await_recovered)
            if kill.victim == RUNNER:
                returning.append(asyncio.create_task(_kill_runner(runner, kill)))
                await returning[-1]
                continue
            await asyncio.sleep(kill.pause.total_seconds())
            victim = await _next_process(cluster, kill.victim, but=None)
            at = datetime.now(UTC)
            # Dead already, it has been killed along with supervisord.
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(victim).kill()
            returning.append(asyncio.create_task(_return(cluster, kill, at, victim)))
        return await asyncio.gather(*returning)
    finally:
        for task in returning:
            task.cancel()


async def _kill_runner(runner: Runner, kill: Kill) -> Killed:
    return Killed(kill, *await runner.kill(kill.pause))


async def _return(cluster: LocalCluster, kill: Kill, at: datetime, dead: int) -> Killed:
    began = time.monotonic()
    await _next_process(cluster, kill.victim, but=dead)
    return Killed(kill, at, timedelta(seconds=time.monotonic() - began))


async def _next_process(cluster: LocalCluster, name: str, but: int | None) -> int:
    """The pid of a program as soon as it runs, in another process than `but`."""

    def its_own(status: Sequence[ComponentStatus]) -> int | None:
        return next((each.pid for each in status if each.name == name and each.state == "RUNNING"), None)

    status = await _until(cluster, lambda status: its_own(status) not in (None, but), name)
    pid = its_own(status)
    assert pid is not None
    return pid


async def _until(
    cluster: LocalCluster, holds: Callable[[Sequence[ComponentStatus]], bool], what: str
) -> Sequence[ComponentStatus]:
    deadline = time.monotonic() + RECOVERS_WITHIN.total_seconds()
    # In a thread: the journeys are followed meanwhile.
    while not holds(status := await asyncio.to_thread(cluster.status)):
        if given_up := next((each for each in status if each.state == "FATAL"), None):
            raise ClusterError(
                f"{given_up.name} was given up after a kill: {given_up.description}. Its last lines:\n"
                f"{given_up.last_lines}"
            )
        if time.monotonic() > deadline:
            states = ", ".join(f"{each.name} is {each.state}" for each in status if each.state != "RUNNING")
            raise ClusterError(
                f"{what} did not come back within {RECOVERS_WITHIN.total_seconds():.0f} s of a kill: "
                f"{states or 'everything else runs'}. `virtflow logs` shows what a program said."
            )
        await asyncio.sleep(POLL.total_seconds())
    return status
