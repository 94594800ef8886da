from collections.abc import Callable
from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import CancelledError
from temporalio.worker import Replayer, Worker

from tests.workflows.conftest import TASK_QUEUE, until_cancel_is_requested, until_there_is
from tests.workflows.fakes import World
from virtflow.temporal import DATA_CONVERTER
from workflows.autoscale import AutoscaleUnderLoad, PressAutoscaler
from workflows.models import AutoscaleOrder, LoadOrder, ReplicaSetRef
from workflows.quota_models import PressOrder

TARGET = ReplicaSetRef("tenant-a-1", "vmirs", "hpa")
LOAD = LoadOrder(TARGET, 10, timedelta(seconds=5), timedelta(minutes=5))
ORDER = AutoscaleOrder(TARGET, LOAD, timedelta(minutes=5), timedelta(minutes=5))


async def run(client: Client) -> object:
    return await client.execute_workflow(AutoscaleUnderLoad.run, ORDER, id="autoscale", task_queue=TASK_QUEUE)


@pytest.mark.anyio
async def test_it_asks_for_the_state_before_and_waits_for_the_end(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    async with worker(*world.activities):
        scaled = await client.execute_workflow(AutoscaleUnderLoad.run, ORDER, id="a", task_queue=TASK_QUEUE)
    # The load begins beside what waits for it.
    assert world.calls.index("run_load") > 1
    assert [call for call in world.calls if call != "run_load"] == [
        "read_autoscaler",
        "await_replicas 1",
        "await_load",
        "await_settled",
        "stop_load",
        "load ended",
        "await_replicas 1",
        "observe_scale_decisions",
    ]
    assert (scaled.before.replicas, scaled.settled.replicas, scaled.after.replicas) == (1, 4, 1)
    assert scaled.highest == 4


@pytest.mark.anyio
async def test_load_is_stopped_when_it_never_settles(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.fails = "await_settled"
    async with worker(*world.activities):
        with pytest.raises(WorkflowFailureError) as failure:
            await run(client)
    assert "await_settled is refused" in str(failure.value.cause.__cause__)
    assert world.calls[-2:] == ["stop_load", "load ended"]


@pytest.mark.anyio
async def test_a_load_that_ends_first_is_a_failure(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.hangs = "await_settled"
    async with worker(*world.activities):
        handle = await client.start_workflow(AutoscaleUnderLoad.run, ORDER, id="a", task_queue=TASK_QUEUE)
        await world.reached.wait()
        world.load_ends.set()
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result()
    assert "before the replica set had settled, or got stuck" in str(failure.value.cause)


@pytest.mark.anyio
async def test_a_load_that_fails_before_its_turn_is_not_waited_for(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    world.hangs = "await_load"
    async with worker(*world.activities):
        handle = await client.start_workflow(AutoscaleUnderLoad.run, ORDER, id="a", task_queue=TASK_QUEUE)
        await world.reached.wait()
        world.load_ends.set()
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result()
    assert "before the replica set had settled, or got stuck" in str(failure.value.cause)
    assert "await_settled" not in world.calls


@pytest.mark.anyio
async def test_cancel_stops_the_load(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.hangs = "await_settled"
    async with worker(*world.activities):
        handle = await client.start_workflow(AutoscaleUnderLoad.run, ORDER, id="a", task_queue=TASK_QUEUE)
        await world.reached.wait()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert "stop_load" in world.calls
    assert "observe_scale_decisions" not in world.calls


@pytest.mark.anyio
@pytest.mark.parametrize("step", ["read_autoscaler", "await_replicas"])
async def test_a_cancel_that_a_step_does_not_hear_of_starts_no_load(
    client: Client, worker: Callable[..., Worker], step: str
) -> None:
    world = World()
    world.is_deaf = step
    async with worker(*world.activities):
        handle = await client.start_workflow(AutoscaleUnderLoad.run, ORDER, id="a", task_queue=TASK_QUEUE)
        await world.reached.wait()
        await handle.cancel()
        await until_cancel_is_requested(handle)
        world.may_end.set()
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result()
    assert isinstance(failure.value.cause, CancelledError)
    assert "run_load" not in world.calls


@pytest.mark.anyio
async def test_a_load_that_ends_while_a_step_does_not_hear_of_it_leads_to_no_further_step(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    world.is_deaf = "await_load"
    world.load_ends.set()
    async with worker(*world.activities):
        handle = await client.start_workflow(AutoscaleUnderLoad.run, ORDER, id="a", task_queue=TASK_QUEUE)
        await world.reached.wait()
        await until_there_is(handle, EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED)
        world.may_end.set()
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result()
    assert "before the replica set had settled, or got stuck" in str(failure.value.cause)
    assert "await_settled" not in world.calls


@pytest.mark.anyio
async def test_its_history_replays(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await client.start_workflow(AutoscaleUnderLoad.run, ORDER, id="a", task_queue=TASK_QUEUE)
        await handle.result()
    replayer = Replayer(workflows=[AutoscaleUnderLoad], data_converter=DATA_CONVERTER)
    assert (await replayer.replay_workflow(await handle.fetch_history())).replay_failure is None


PRESS = PressOrder(TARGET, LOAD, timedelta(minutes=1))


@pytest.mark.anyio
async def test_load_on_a_stuck_autoscaler_ends_when_it_is_stuck(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    async with worker(*world.activities):
        pressed = await client.execute_workflow(PressAutoscaler.run, PRESS, id="p", task_queue=TASK_QUEUE)
    assert "run_load" in world.calls
    rest = [call for call in world.calls if call != "run_load"]
    assert rest == ["await_load", "await_stuck", "stop_load", "load ended"]
    assert (pressed.strain.desired, pressed.strain.ready, pressed.load.never_started) == (4, 2, 0)


@pytest.mark.anyio
async def test_load_ends_also_when_the_autoscaler_is_never_stuck(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    world.fails = "await_stuck"
    async with worker(*world.activities):
        with pytest.raises(WorkflowFailureError):
            await client.execute_workflow(PressAutoscaler.run, PRESS, id="p", task_queue=TASK_QUEUE)
    assert world.calls[-2:] == ["stop_load", "load ended"]


@pytest.mark.anyio
async def test_the_history_of_load_on_a_stuck_autoscaler_replays(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await client.start_workflow(PressAutoscaler.run, PRESS, id="p", task_queue=TASK_QUEUE)
        await handle.result()
    replayer = Replayer(workflows=[PressAutoscaler], data_converter=DATA_CONVERTER)
    assert (await replayer.replay_workflow(await handle.fetch_history())).replay_failure is None
