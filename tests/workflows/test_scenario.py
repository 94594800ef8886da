from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import anyio
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from tests.workflows.conftest import TASK_QUEUE
from tests.workflows.fakes import ORDER, TENANT, World
from virtflow.temporal import DATA_CONVERTER
from virtflow.worker import WORKFLOWS
from workflows.failures import words_of
from workflows.models import GatewayRequest, ScenarioOrder, StepsTaken, Verb, VirtualMachineOrder, VirtualMachineRef
from workflows.quota_models import Seen
from workflows.scenario import Scenario

SCENARIO = ScenarioOrder("r", "a feature", "a scenario", {}, timedelta(minutes=10))
MACHINE = VirtualMachineOrder(TENANT, "kind: VirtualMachine", {}, timedelta(minutes=1))

Handle = WorkflowHandle[Scenario, list[str]]


async def start(client: Client) -> Handle:
    return await client.start_workflow(Scenario.run, SCENARIO, id="scenario", task_queue=TASK_QUEUE)


@pytest.mark.anyio
async def test_what_was_made_is_undone_last_first(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    other = type(ORDER)("tenant-b", "tenant-b-1", {})
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        await handle.execute_update(Scenario.create_tenant, other)
        await handle.signal(Scenario.end)
        assert await handle.result() == []
    assert world.calls[-2:] == ["delete_tenant tenant-b-1", "delete_tenant tenant-a-1"]


@pytest.mark.anyio
async def test_a_repeated_step_returns_the_first_result(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await start(client)
        first = await handle.execute_update(Scenario.create_virtual_machine, MACHINE, id="001-step")
        again = await handle.execute_update(Scenario.create_virtual_machine, MACHINE, id="001-step")
        await handle.signal(Scenario.end)
        await handle.result()
    assert first == again
    assert world.calls.count("send create") == 1


@pytest.mark.anyio
async def test_a_repeated_step_that_failed_is_not_tried_again(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.fails = "list_names"
    said: list[str] = []
    async with worker(*world.activities):
        handle = await start(client)
        for _ in range(2):
            with pytest.raises(WorkflowUpdateFailedError) as failed:
                await handle.execute_update(Scenario.list_virtual_machines, "tenant-a-1", id="001-step")
            said.append(words_of(failed.value))
            world.fails = ""
        await handle.signal(Scenario.end)
        await handle.result()
    assert said[0] == said[1] != ""
    assert len(world.calls) == 1


@pytest.mark.anyio
async def test_a_create_that_failed_is_undone_too(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.fails = "create_tenant"
    async with worker(*world.activities):
        handle = await start(client)
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(Scenario.create_tenant, ORDER)
        await handle.signal(Scenario.end)
        await handle.result()
    assert world.calls == ["create_tenant", "delete_tenant tenant-a-1"]


@pytest.mark.anyio
async def test_what_cannot_be_undone_is_named(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.fails = "delete_tenant"
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        await handle.signal(Scenario.end)
        [left] = await handle.result()
    assert "tenant-a-1" in left
    assert "delete_tenant is refused" in left


@pytest.mark.anyio
async def test_cancel_ends_the_running_step_before_undoing(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.hangs = "await_running"
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        step = await handle.start_update(
            Scenario.create_virtual_machine, MACHINE, wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        await world.reached.wait()
        await handle.cancel()
        assert await handle.result() == []
        with pytest.raises(WorkflowUpdateFailedError):
            await step.result()
    assert world.calls[-2:] == ["await_running cancelled", "delete_tenant tenant-a-1"]


@pytest.mark.anyio
async def test_a_cancel_while_undoing_does_not_stop_it(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.is_deaf = "delete_tenant"
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        await handle.cancel()
        await world.reached.wait()
        await handle.cancel()
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(Scenario.create_tenant, ORDER)
        world.may_end.set()
        assert await handle.result() == []
    assert world.calls == ["create_tenant", "delete_tenant tenant-a-1"]


@pytest.mark.anyio
async def test_silence_undoes(environment: WorkflowEnvironment, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await start(environment.client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        # Nobody speaks: result() lets the server skip the ten minutes.
        assert await handle.result() == []
    assert world.calls == ["create_tenant", "delete_tenant tenant-a-1"]


@pytest.mark.anyio
async def test_it_says_which_steps_it_has_finished_and_which_are_under_way(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    world.hangs = "await_running"
    async with worker(*world.activities):
        handle = await start(client)
        assert await handle.query(Scenario.steps_taken) == StepsTaken([], [], is_over=False)
        await handle.execute_update(Scenario.create_tenant, ORDER, id="001-1-a")
        world.fails = "list_names"
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(Scenario.list_virtual_machines, "tenant-a-1", id="002-1-b")
        await handle.start_update(
            Scenario.create_virtual_machine, MACHINE, id="003-1-c", wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        await world.reached.wait()
        expected = StepsTaken(["001-1-a", "002-1-b"], ["003-1-c"], is_over=False)
        assert await handle.query(Scenario.steps_taken) == expected
        await handle.signal(Scenario.end)
        await handle.result()
        assert (await handle.query(Scenario.steps_taken)).is_over


MANY = [type(ORDER)(f"tenant-{number}", f"tenant-{number}-1", {}) for number in range(60)]


@pytest.mark.anyio
async def test_many_tenants_come_at_once_and_are_all_undone(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        tenants = await handle.execute_update(Scenario.create_tenants, MANY)
        await handle.signal(Scenario.end)
        assert await handle.result() == []
    assert [tenant.namespace for tenant in tenants] == [order.namespace for order in MANY]
    # The last step's first; the tenants of one step have no order among themselves.
    undone = [call.removeprefix("delete_tenant ") for call in world.calls if call.startswith("delete_tenant")]
    assert sorted(undone[:-1]) == sorted(order.namespace for order in MANY)
    assert undone[-1] == "tenant-a-1"


@pytest.mark.anyio
async def test_one_of_many_that_fails_is_told_when_the_others_have_ended(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    world.fails = MANY[3].namespace
    async with worker(*world.activities):
        handle = await start(client)
        with pytest.raises(WorkflowUpdateFailedError) as raised:
            await handle.execute_update(Scenario.create_tenants, MANY)
        assert len(world.made) == len(MANY) - 1, "the others were left half made"
        await handle.signal(Scenario.end)
        assert await handle.result() == []
    assert words_of(raised.value) == f"1 of 60 failed. The first: {MANY[3].namespace} is refused"
    assert sum(call.startswith("delete_tenant") for call in world.calls) == len(MANY)


async def until_only_one_is_left(handle: Handle) -> None:
    """And the workflow has heard of the others: amid them the test server left the cancellation without an answer."""
    with anyio.fail_after(60):
        while True:
            events = [event.event_type async for event in handle.fetch_history_events()]
            others = events.count(EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
            if others == len(MANY) - 1 and events[-1] == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                return
            await anyio.sleep(0.05)


@pytest.mark.anyio
async def test_cancel_in_the_middle_of_many_undoes_all_of_them_after_the_last_has_ended(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    world.hangs = MANY[-1].namespace
    async with worker(*world.activities):
        handle = await start(client)
        step = await handle.start_update(Scenario.create_tenants, MANY, wait_for_stage=WorkflowUpdateStage.ACCEPTED)
        await until_only_one_is_left(handle)
        await handle.cancel()
        with anyio.fail_after(60):
            assert await handle.result() == []
        with anyio.fail_after(60), pytest.raises(WorkflowUpdateFailedError):
            await step.result()
    first = next(place for place, call in enumerate(world.calls) if call.startswith("delete_tenant"))
    assert f"{MANY[-1].namespace} cancelled" in world.calls[:first]
    assert set(world.calls[first:]) == {f"delete_tenant {order.namespace}" for order in MANY}


@pytest.mark.anyio
async def test_a_tenant_that_is_changed_is_undone_once(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        await handle.execute_update(Scenario.change_tenant, ORDER)
        await handle.signal(Scenario.end)
        await handle.result()
    assert world.calls == ["create_tenant", "create_tenant", "delete_tenant tenant-a-1"]


@pytest.mark.anyio
async def test_a_namespace_has_one_tenant_and_a_tenant_that_is_changed_keeps_its_own(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    other = replace(ORDER, name="tenant-b")
    elsewhere = replace(ORDER, namespace="elsewhere")
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenants, MANY)
        with pytest.raises(WorkflowUpdateFailedError) as shared:
            await handle.execute_update(Scenario.create_tenants, [ORDER, other])
        with pytest.raises(WorkflowUpdateFailedError) as stranger:
            await handle.execute_update(Scenario.change_tenant, replace(ORDER, namespace=MANY[0].namespace))
        with pytest.raises(WorkflowUpdateFailedError) as moved:
            await handle.execute_update(Scenario.change_tenant, elsewhere)
        await handle.signal(Scenario.end)
        await handle.result()
    assert words_of(shared.value) == "Namespace tenant-a-1 is tenant-a's: tenant-b cannot have it, too."
    assert words_of(stranger.value) == f"Namespace {MANY[0].namespace} is tenant-0's: tenant-a cannot have it, too."
    assert words_of(moved.value) == "tenant-a has no namespace elsewhere: a tenant that is changed keeps its own."
    assert sorted(world.made) == sorted(order.namespace for order in MANY)


@pytest.mark.anyio
async def test_what_many_see_is_told_by_their_machines(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    requests = [GatewayRequest(TENANT, Verb.CREATE, manifest="kind: VirtualMachine")] * 3
    async with worker(*world.activities):
        handle = await start(client)
        seen = await handle.execute_update(Scenario.request_gateway_at_once, requests)
        world.code = 403
        refused = await handle.execute_update(Scenario.request_gateway_at_once, requests[:1])
        await handle.signal(Scenario.end)
        await handle.result()
    assert seen == [Seen(201, "", [VirtualMachineRef("tenant-a-1", "vm", "u1")])] * 3
    assert refused == [Seen(403, "Forbidden", [])]


@pytest.mark.anyio
async def test_its_history_replays(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await start(client)
        await handle.execute_update(Scenario.create_tenant, ORDER)
        await handle.execute_update(Scenario.create_tenants, MANY)
        await handle.execute_update(Scenario.create_virtual_machine, MACHINE)
        await handle.signal(Scenario.end)
        await handle.result()
    result = await Replayer(workflows=WORKFLOWS, data_converter=DATA_CONVERTER).replay_workflow(
        await handle.fetch_history()
    )
    assert result.replay_failure is None
