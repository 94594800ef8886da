import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from clusters.kubevirt.controller.workqueue import FAILED_TEST, WorkQueue, is_lost_race
from tests.unit.virtual_time import run_in_virtual_time
from virtflow.kube import Key, KubeError, Object

KEY = ("tenant", "test-vm")


@asynccontextmanager
async def running(queue: WorkQueue, bound: float = 10) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        async with asyncio.timeout(bound):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.anyio
async def test_one_key_is_worked_on_once_at_a_time_and_once_more_after_a_change() -> None:
    begun, go_on, done = asyncio.Semaphore(0), asyncio.Semaphore(0), asyncio.Event()
    at_work, runs = 0, 0

    async def reconcile(_: Key) -> None:
        nonlocal at_work, runs
        at_work, runs = at_work + 1, runs + 1
        assert at_work == 1
        begun.release()
        await go_on.acquire()
        at_work -= 1
        if runs == 2:
            done.set()

    queue = WorkQueue("VM", reconcile)
    async with running(queue):
        queue.add(KEY)
        queue.add(KEY)
        await begun.acquire()
        for _ in range(5):
            queue.add(KEY)
        go_on.release()
        go_on.release()
        await done.wait()
    assert runs == 2


@pytest.mark.anyio
async def test_keys_do_not_wait_for_one_another() -> None:
    meeting = asyncio.Barrier(2)
    met = asyncio.Event()

    async def reconcile(_: Key) -> None:
        await meeting.wait()
        met.set()

    queue = WorkQueue("VM", reconcile, workers=2)
    async with running(queue):
        queue.add(("tenant", "a"))
        queue.add(("tenant", "b"))
        await met.wait()
    assert met.is_set()


@pytest.mark.parametrize(
    "error", [KubeError(409, {}, "PUT"), KubeError(403, {}, "POST"), TimeoutError(), KeyError("bug")]
)
@pytest.mark.anyio
async def test_what_failed_comes_back(error: Exception) -> None:
    tries: Counter[Key] = Counter()
    done = asyncio.Event()

    async def reconcile(key: Key) -> None:
        tries[key] += 1
        if tries[key] < 4:
            raise error
        done.set()

    queue = WorkQueue("VM", reconcile, workers=1)
    async with running(queue):
        queue.add(KEY)
        await done.wait()
    assert tries[KEY] == 4


@pytest.mark.anyio
async def test_a_reconciler_may_ask_to_look_again() -> None:
    tries = 0
    done = asyncio.Event()

    async def reconcile(_: Key) -> timedelta | None:
        nonlocal tries
        tries += 1
        if tries == 2:
            done.set()
            return None
        return timedelta(milliseconds=1)

    queue = WorkQueue("VM", reconcile)
    async with running(queue):
        queue.add(KEY)
        await done.wait()
    assert tries == 2


@pytest.mark.parametrize(
    ("code", "status", "lost"),
    [
        (409, {}, True),
        (404, {}, True),
        (422, {"message": FAILED_TEST}, True),
        (422, {"message": "spec.domain is required"}, False),
        (403, {"message": "exceeded quota"}, False),
        (403, {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}, True),
        (403, {"details": None}, False),
    ],
)
def test_what_is_nobodys_fault(code: int, status: Object, lost: bool) -> None:
    assert is_lost_race(KubeError(code, status, "PUT")) is lost


def test_changes_in_swarms_are_seen_at_once_and_then_together() -> None:
    run_in_virtual_time(swarm())


async def swarm() -> None:
    seen: list[float] = []

    async def reconcile(_: Key) -> None:
        seen.append(asyncio.get_running_loop().time() - begun)

    queue = WorkQueue("VMIRS", reconcile, gather=timedelta(seconds=1))
    async with running(queue):
        begun = asyncio.get_running_loop().time()
        for _ in range(25):
            queue.add_soon(KEY)
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        assert [round(moment) for moment in seen] == [0, 1, 2, 3]
        queue.add_soon(KEY)
        queue.add_soon(KEY)
        await asyncio.sleep(0.1)
        queue.add(KEY)
        await asyncio.sleep(0.1)
        assert len(seen) == 6


def test_what_is_refused_for_long_comes_back_less_often_than_what_got_no_answer() -> None:
    run_in_virtual_time(intervals())


async def intervals() -> None:
    for error, longest in ((KubeError(403, {}, "POST"), 60), (TimeoutError(), 20)):
        seen: list[float] = []

        async def reconcile(_: Key) -> None:
            seen.append(asyncio.get_running_loop().time())  # noqa: B023
            raise error  # noqa: B023

        queue = WorkQueue("VM", reconcile)
        async with running(queue, bound=600):
            queue.add(KEY)
            await asyncio.sleep(500)
        assert round(seen[-1] - seen[-2]) == longest
