from collections.abc import Callable
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.worker import Replayer, Worker

from tests.workflows.conftest import TASK_QUEUE
from tests.workflows.fakes import TENANT, World
from virtflow.temporal import DATA_CONVERTER
from workflows.create_vm import CreateVirtualMachine
from workflows.models import VirtualMachineOrder, VirtualMachineRef

ORDER = VirtualMachineOrder(TENANT, "kind: VirtualMachine", {}, timedelta(minutes=1))


@pytest.mark.anyio
async def test_it_follows_the_sequence(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        created = await client.execute_workflow(CreateVirtualMachine.run, ORDER, id="vm", task_queue=TASK_QUEUE)
    assert world.calls == ["send create", "await_running", "observe_create_sequence"]
    assert created.machine == VirtualMachineRef("tenant-a-1", "vm", "u1")
    assert created.state is not None
    assert created.state.printable_status == "Running"
    assert created.arrows[0].after == timedelta()


@pytest.mark.anyio
async def test_a_refusal_is_an_answer(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    world.code = 422
    async with worker(*world.activities):
        created = await client.execute_workflow(CreateVirtualMachine.run, ORDER, id="vm", task_queue=TASK_QUEUE)
    assert world.calls == ["send create"]
    assert (created.answer.code, created.machine) == (422, None)


@pytest.mark.anyio
async def test_its_history_replays(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    async with worker(*world.activities):
        handle = await client.start_workflow(CreateVirtualMachine.run, ORDER, id="vm", task_queue=TASK_QUEUE)
        await handle.result()
    replayer = Replayer(workflows=[CreateVirtualMachine], data_converter=DATA_CONVERTER)
    result = await replayer.replay_workflow(await handle.fetch_history())
    assert result.replay_failure is None
