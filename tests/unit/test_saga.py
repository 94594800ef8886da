"""Saga order, whatever fails, and what a cancellation must not cut short."""

import asyncio
import logging
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from workflows import saga
from workflows.create_vm import CreateVirtualMachine
from workflows.models import VirtualMachineOrder
from workflows.options import AT_ONCE
from workflows.saga import Saga, at_once, run_child, uninterrupted
from workflows.tenant_models import Tenant

ORDER = VirtualMachineOrder(Tenant("a", "a-1", ["a-user"]), "", {}, timedelta(minutes=1))


def failure() -> ActivityError:
    return ActivityError(
        "failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="undo",
        activity_id="1",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )


@given(st.lists(st.booleans(), max_size=8))
def test_everything_is_undone_once_in_reverse_whatever_fails(fails: list[bool]) -> None:
    undone: list[int] = []
    one = Saga()
    for number, fail in enumerate(fails):

        async def undo(number: int = number, fail: bool = fail) -> None:
            undone.append(number)
            if fail:
                raise failure()

        one.will_undo((f"thing {number}", undo))
    left = asyncio.run(one.undo())
    again = asyncio.run(one.undo())
    assert undone == list(reversed(range(len(fails))))
    assert [line.split(":")[0] for line in left] == [f"thing {n}" for n in reversed(range(len(fails))) if fails[n]]
    assert again == []


def test_what_was_made_together_is_undone_together() -> None:
    met = asyncio.Barrier(3)

    async def meet() -> None:
        await met.wait()
        raise failure()

    async def first() -> None:
        assert met.broken or met.n_waiting == 0, "it did not wait for what was made later"

    async def undo() -> list[str]:
        one = Saga()
        one.will_undo(("first", first))
        one.will_undo(("a", meet), ("b", meet), ("c", meet))
        async with asyncio.timeout(20):
            return await one.undo()

    assert [line.split(":")[0] for line in asyncio.run(undo())] == ["a", "b", "c"]


def test_of_many_that_were_made_together_only_so_many_are_undone_at_a_time() -> None:
    acting: list[int] = []
    most = 0

    async def undo(number: int) -> None:
        nonlocal most
        acting.append(number)
        most = max(most, len(acting))
        await asyncio.sleep(0)
        acting.remove(number)
        raise failure()

    one = Saga()
    one.will_undo(*((f"thing {number}", partial(undo, number)) for number in range(3 * AT_ONCE)))
    left = asyncio.run(one.undo())
    assert most == AT_ONCE
    assert [line.split(":")[0] for line in left] == [f"thing {number}" for number in range(3 * AT_ONCE)]


@given(fails=st.lists(st.booleans(), max_size=12), most=st.integers(1, 5))
def test_at_once_all_come_to_their_end_in_their_order_and_never_too_many_act(fails: list[bool], most: int) -> None:
    acting: set[int] = set()
    ended: set[int] = set()

    async def act(number: int) -> int:
        acting.add(number)
        assert len(acting) <= most
        await asyncio.sleep(0)
        acting.remove(number)
        ended.add(number)
        if fails[number]:
            raise ApplicationError(f"number {number}")
        return number

    async def together() -> list[int]:
        return await at_once([partial(act, number) for number in range(len(fails))], most)

    if any(fails):
        with pytest.raises(ApplicationError) as raised:
            asyncio.run(together())
        assert f"number {fails.index(True)}" in raised.value.message
        assert str(sum(fails)) in raised.value.message or len(fails) == 1
    else:
        assert asyncio.run(together()) == list(range(len(fails)))
    assert ended == set(range(len(fails)))


def test_a_cancellation_of_many_ends_when_the_last_has_ended() -> None:
    ended: list[int] = []

    async def act(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(number):
                await asyncio.sleep(0)
            ended.append(number)

    async def cancelled() -> None:
        task = asyncio.create_task(at_once([partial(act, number) for number in range(5)], 5))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == list(range(5))

    asyncio.run(cancelled())


class Server:
    """Starts a child when it is told to, as a server does that has much to do; the child runs until cancelled."""

    logger = logging.getLogger(__name__)

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.child: asyncio.Task[None] | None = None
        self.id = ""

    def info(self) -> SimpleNamespace:
        return SimpleNamespace(workflow_id="parent")

    async def start_child_workflow(self, _run: object, _order: object, *, id: str) -> asyncio.Task[None]:  # noqa: A002
        await self.may_start.wait()
        self.id = id
        self.child = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
        return self.child


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """In place of the workflow that these functions are part of."""
    server = Server()
    monkeypatch.setattr(saga, "workflow", server)
    return server


@pytest.mark.anyio
@pytest.mark.usefixtures("server")
async def test_undoing_ends_however_often_it_is_cancelled() -> None:
    may_end, left = asyncio.Event(), ["a namespace"]

    async def undo() -> list[str]:
        await may_end.wait()
        return left

    waiting = asyncio.create_task(uninterrupted(undo()))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    may_end.set()
    assert await waiting is left


@pytest.mark.anyio
@pytest.mark.usefixtures("server")
async def test_what_is_cancelled_from_inside_does_not_wait_for_ever() -> None:
    async def undo() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await uninterrupted(undo())


@pytest.mark.anyio
async def test_a_child_that_was_only_asked_for_is_awaited_and_cancelled(server: Server) -> None:
    running = asyncio.create_task(run_child(CreateVirtualMachine.run, ORDER, name="create"))
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done(), "it left before the child was there to be cancelled"
    server.may_start.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.id == "parent/create"
    assert server.child is not None
    assert server.child.cancelled()
