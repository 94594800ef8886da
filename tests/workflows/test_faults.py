"""What a scenario makes fail is whole again in the end, whatever becomes of the scenario."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.worker import Worker

from tests.workflows.conftest import TASK_QUEUE
from tests.workflows.fakes import ORDER, World
from workflows.failures import words_of
from workflows.fault_models import NodeFault, Outage, OutageEnded
from workflows.models import ScenarioOrder
from workflows.options import OUTAGES
from workflows.scenario import Scenario

pytestmark = pytest.mark.anyio

SCENARIO = ScenarioOrder("r", "a feature", "a scenario", {}, timedelta(minutes=10))
NODE = NodeFault("node-1", "failed by 1")
OUTAGE = Outage("kube-apiserver", timedelta(seconds=20))
ENDED = OutageEnded(datetime(2026, 11, 23, 10, tzinfo=UTC), datetime(2026, 11, 23, 10, 0, 20, tzinfo=UTC))

Handle = WorkflowHandle[Scenario, list[str]]


class Broken(World):
    """Notes faults beside the rest. An outage is over when `time_is_over` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.time_is_over = asyncio.Event()
        self.is_away = False

    @activity.defn
    async def fail_node(self, fault: NodeFault) -> None:
        await self._act(f"fail_node {fault.node}")

    @activity.defn
    async def mend_node(self, fault: NodeFault) -> None:
        await self._act(f"mend_node {fault.node}")

    @activity.defn
    async def hold_down(self, _outage: Outage) -> OutageEnded:
        await self._act("hold_down")
        self.is_away = True
        try:
            await self._until(self.time_is_over)
        finally:
            self.is_away = False
            self.calls.append("back")
        return ENDED

    @activity.defn
    async def await_down(self, _outage: Outage) -> None:
        while not self.is_away:
            activity.heartbeat()
            await asyncio.sleep(0.02)
        self.calls.append("away")

    @activity.defn
    async def bring_back(self, _outage: Outage) -> None:
        await self._act("bring_back")


@asynccontextmanager
async def scenario(
    client: Client, worker: Callable[..., Worker], world: Broken
) -> AsyncIterator[WorkflowHandle[Scenario, list[str]]]:
    of_outages = Worker(
        client,
        task_queue=OUTAGES,
        activities=[world.hold_down, world.await_down, world.bring_back],
        max_heartbeat_throttle_interval=timedelta(milliseconds=100),
    )
    async with of_outages, worker(*world.activities, world.fail_node, world.mend_node):
        handle = await client.start_workflow(Scenario.run, SCENARIO, id="faults", task_queue=TASK_QUEUE)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        yield handle


async def ended(handle: Handle) -> list[str]:
    await handle.signal(Scenario.end)
    return await handle.result()


async def test_steps_are_done_while_a_program_is_away(client: Client, worker: Callable[..., Worker]) -> None:
    world = Broken()
    async with scenario(client, worker, world) as handle:
        await handle.execute_update(Scenario.take_down, OUTAGE)
        assert world.is_away
        await handle.execute_update(Scenario.list_virtual_machines, ORDER.namespace)
        assert world.is_away
        world.time_is_over.set()
        assert await handle.execute_update(Scenario.await_back, OUTAGE) == ENDED
        assert await ended(handle) == []
    assert world.calls == [
        "create_tenant",
        "hold_down",
        "away",
        "list_names",
        "back",
        "bring_back",
        "delete_tenant tenant-a-1",
    ]


@pytest.mark.parametrize("how", ["ended", "cancelled"])
async def test_a_scenario_that_is_over_brings_back_what_is_away_before_it_removes_its_tenants(
    client: Client, worker: Callable[..., Worker], how: str
) -> None:
    world = Broken()
    async with scenario(client, worker, world) as handle:
        await handle.execute_update(Scenario.take_down, OUTAGE)
        if how == "cancelled":
            await handle.cancel()
        assert (await handle.result() if how == "cancelled" else await ended(handle)) == []
    assert world.calls == ["create_tenant", "hold_down", "away", "back", "bring_back", "delete_tenant tenant-a-1"]


async def test_what_cannot_be_taken_down_says_why(client: Client, worker: Callable[..., Worker]) -> None:
    world = Broken()
    world.fails = "hold_down"
    async with scenario(client, worker, world) as handle:
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await handle.execute_update(Scenario.take_down, OUTAGE)
        assert words_of(failed.value) == "hold_down is refused"
        assert await ended(handle) == []
    assert world.calls[-2:] == ["bring_back", "delete_tenant tenant-a-1"]


async def test_what_is_away_is_not_taken_down_again(client: Client, worker: Callable[..., Worker]) -> None:
    world = Broken()
    async with scenario(client, worker, world) as handle:
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await handle.execute_update(Scenario.await_back, OUTAGE)
        assert "was not taken down before this step" in words_of(failed.value)
        await handle.execute_update(Scenario.take_down, OUTAGE)
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await handle.execute_update(Scenario.take_down, OUTAGE)
        assert "kube-apiserver is away already" in words_of(failed.value)
        world.time_is_over.set()
        await handle.execute_update(Scenario.await_back, OUTAGE)
        await handle.execute_update(Scenario.take_down, OUTAGE)
        assert await ended(handle) == []
    assert world.calls.count("hold_down") == 2


@pytest.mark.parametrize("fails", ["", "fail_node"])
async def test_a_node_is_mended_also_if_it_did_not_fail_as_it_should(
    client: Client, worker: Callable[..., Worker], fails: str
) -> None:
    world = Broken()
    world.fails = fails
    async with scenario(client, worker, world) as handle:
        if fails:
            with pytest.raises(WorkflowUpdateFailedError):
                await handle.execute_update(Scenario.fail_node, NODE)
        else:
            await handle.execute_update(Scenario.fail_node, NODE)
            await handle.execute_update(Scenario.mend_node, NODE)
        assert await ended(handle) == []
    mended = ["mend_node node-1"] * (1 if fails else 2)
    assert world.calls == ["create_tenant", "fail_node node-1", *mended, "delete_tenant tenant-a-1"]


async def test_a_node_that_cannot_be_mended_is_named(client: Client, worker: Callable[..., Worker]) -> None:
    world = Broken()
    world.fails = "mend_node"
    async with scenario(client, worker, world) as handle:
        await handle.execute_update(Scenario.fail_node, NODE)
        assert await ended(handle) == ["node node-1: mend_node is refused"]
