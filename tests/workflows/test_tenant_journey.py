from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Replayer, Worker

from tests.workflows.conftest import TASK_QUEUE, until_cancel_is_requested
from tests.workflows.fakes import ORDER, World
from virtflow.temporal import DATA_CONVERTER
from virtflow.worker import WORKFLOWS
from workflows.failures import FailureType
from workflows.journey_models import JourneyLoad, JourneyOrder, JourneyPhase, TenantJourneyOutcome
from workflows.tenant_journey import LEFT_BEHIND, PHASE, TenantJourney

pytestmark = pytest.mark.anyio

MINUTES = timedelta(minutes=5)
LOAD = JourneyLoad("kind: VMIRS", "kind: HPA", 28, timedelta(seconds=5), MINUTES, MINUTES, MINUTES, MINUTES)
WITH_LOAD = JourneyOrder(ORDER, "kind: VirtualMachine", timedelta(minutes=1), LOAD)
WITHOUT_LOAD = replace(WITH_LOAD, load=None)

MACHINE = ["create_tenant", "send create", "await_running", "observe_create_sequence"]
SCALING = ["create_replica_set", "read_autoscaler", "await_replicas 1"]
UNDO = "delete_tenant tenant-a-1"

Handle = WorkflowHandle[TenantJourney, TenantJourneyOutcome]


async def start(client: Client, order: JourneyOrder) -> Handle:
    return await client.start_workflow(TenantJourney.run, order, id="run/journey/tenant-a", task_queue=TASK_QUEUE)


async def travel(
    client: Client, worker: Callable[..., Worker], world: World, order: JourneyOrder = WITH_LOAD
) -> TenantJourneyOutcome:
    async with worker(*world.activities):
        return await (await start(client, order)).result()


async def test_it_reads_like_the_diagram(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    outcome = await travel(client, worker, world)
    # The load begins beside what waits for it.
    assert world.calls.index("run_load") >= len(MACHINE + SCALING)
    assert [call for call in world.calls if call != "run_load"] == [
        *MACHINE,
        *SCALING,
        "await_load",
        "await_settled",
        "stop_load",
        "load ended",
        "await_replicas 1",
        "observe_scale_decisions",
        UNDO,
    ]
    assert list(outcome.took) == list(JourneyPhase) == WITH_LOAD.phases
    assert all(took >= timedelta() for took in outcome.took.values())
    assert sum(list(outcome.took.values())[:-1], timedelta()) <= outcome.took[JourneyPhase.WHOLE]
    assert (outcome.stopped_at, outcome.problem, outcome.left) == (None, "", [])
    assert outcome.running_after == timedelta()
    assert [decision.after for decision in outcome.decisions] == [4]
    assert outcome.load is not None


async def test_without_load_there_is_no_replica_set(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    outcome = await travel(client, worker, world, WITHOUT_LOAD)
    assert world.calls == [*MACHINE, UNDO]
    assert list(outcome.took) == WITHOUT_LOAD.phases
    assert outcome.stopped_at is None


async def test_a_refused_machine_is_a_failed_phase_in_the_servers_words(
    client: Client, worker: Callable[..., Worker]
) -> None:
    world = World()
    world.code = 403
    outcome = await travel(client, worker, world)
    assert world.calls == ["create_tenant", "send create", UNDO]
    assert outcome.stopped_at is JourneyPhase.VM_ACCEPTED
    assert outcome.problem == "The gateway answered 403 Forbidden: exceeded quota"
    assert list(outcome.took) == [JourneyPhase.TENANT_CREATED, JourneyPhase.GONE]


@pytest.mark.parametrize(
    ("fails", "stopped_at"),
    [
        ("create_tenant", JourneyPhase.TENANT_CREATED),
        ("send", JourneyPhase.VM_ACCEPTED),
        ("await_running", JourneyPhase.VM_RUNNING),
        ("observe_create_sequence", JourneyPhase.VM_RUNNING),
        ("create_replica_set", JourneyPhase.REPLICA_SET_READY),
        ("read_autoscaler", JourneyPhase.SCALED_OUT),
        ("await_settled", JourneyPhase.SCALED_OUT),
        ("scale_in", JourneyPhase.SCALED_IN),
        ("observe_scale_decisions", JourneyPhase.SCALED_IN),
    ],
)
async def test_a_phase_that_fails_is_named_and_everything_is_undone(
    client: Client, worker: Callable[..., Worker], fails: str, stopped_at: JourneyPhase
) -> None:
    world = World()
    world.fails = fails
    outcome = await travel(client, worker, world)
    passed = WITH_LOAD.phases[: WITH_LOAD.phases.index(stopped_at)]
    assert (outcome.stopped_at, outcome.problem) == (stopped_at, f"{fails} is refused")
    assert outcome.failed_by is FailureType.REFUSED
    assert list(outcome.took) == [*passed, JourneyPhase.GONE], "what was passed has its time all the same"
    assert world.calls.count(UNDO) == 1
    assert world.calls[-1] == UNDO


async def test_what_cleanup_leaves_is_named(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.fails = "delete_tenant"
    outcome = await travel(client, worker, world)
    assert outcome.left == ["namespace tenant-a-1: delete_tenant is refused"]
    assert (outcome.stopped_at, outcome.problem) == (JourneyPhase.GONE, outcome.left[0])
    assert JourneyPhase.SCALED_IN in outcome.took
    assert not {JourneyPhase.GONE, JourneyPhase.WHOLE} & set(outcome.took)


@pytest.mark.parametrize("hangs", ["await_running", "create_replica_set", "await_settled", "scale_in"])
async def test_a_cancel_ends_what_runs_and_then_undoes(
    client: Client, worker: Callable[..., Worker], hangs: str
) -> None:
    world = World()
    world.hangs = hangs
    async with worker(*world.activities):
        handle = await start(client, WITH_LOAD)
        await world.reached.wait()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result()
    assert isinstance(failure.value.cause, CancelledError)
    assert world.calls.index(f"{hangs} cancelled") < world.calls.index(UNDO) == len(world.calls) - 1


@pytest.mark.parametrize(
    ("deaf", "child"),
    [
        ("create_tenant", ""),
        ("send", "/create"),
        ("observe_create_sequence", "/create"),
        ("create_replica_set", ""),
        ("read_autoscaler", "/autoscale"),
        ("observe_scale_decisions", "/autoscale"),
    ],
)
async def test_a_cancel_that_a_step_does_not_hear_of_ends_the_journey_after_it(
    client: Client, worker: Callable[..., Worker], deaf: str, child: str
) -> None:
    world = World()
    world.is_deaf = deaf
    async with worker(*world.activities):
        handle = await start(client, WITH_LOAD)
        await world.reached.wait()
        await handle.cancel()
        await until_cancel_is_requested(client.get_workflow_handle(handle.id + child))
        world.may_end.set()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    assert [call.partition(" ")[0] for call in world.calls[-2:]] == [deaf, "delete_tenant"]


async def test_a_cancel_while_undoing_does_not_stop_it(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.hangs, world.is_deaf = "await_running", "delete_tenant"
    async with worker(*world.activities):
        handle = await start(client, WITH_LOAD)
        await world.reached.wait()
        world.reached.clear()
        await handle.cancel()
        await world.reached.wait()
        await handle.cancel()
        world.may_end.set()
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result()
    assert isinstance(failure.value.cause, CancelledError)
    assert world.calls[-2:] == ["await_running cancelled", UNDO]


async def test_what_a_cancelled_journey_leaves_is_not_lost(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.hangs, world.fails = "await_running", "delete_tenant"
    async with worker(*world.activities):
        handle = await start(client, WITHOUT_LOAD)
        await world.reached.wait()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failure:
            await handle.result()
    cause = failure.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == LEFT_BEHIND
    assert "namespace tenant-a-1: delete_tenant is refused" in cause.message


async def test_its_memo_says_how_far_it_is(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.hangs = "create_replica_set"
    async with worker(*world.activities):
        handle = await start(client, WITH_LOAD)
        await world.reached.wait()
        assert (await (await handle.describe()).memo())[PHASE] == JourneyPhase.VM_RUNNING
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()


@pytest.mark.parametrize("order", [WITH_LOAD, WITHOUT_LOAD], ids=["with load", "without load"])
async def test_its_history_replays(client: Client, worker: Callable[..., Worker], order: JourneyOrder) -> None:
    async with worker(*World().activities):
        handle = await start(client, order)
        await handle.result()
    replayer = Replayer(workflows=WORKFLOWS, data_converter=DATA_CONVERTER)
    assert (await replayer.replay_workflow(await handle.fetch_history())).replay_failure is None
