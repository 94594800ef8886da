"""A scenario's steps about access: what they ask for, and that all of a matrix survives the way."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from tests.workflows.conftest import TASK_QUEUE
from tests.workflows.fakes import MATRIX, TENANT, World
from workflows.access_models import (
    AccessOrder,
    Door,
    DoorAnswer,
    DoorRequest,
    LoggedReason,
    SecretOrder,
    Withdrawal,
    WithdrawnTokenOrder,
)
from workflows.models import ScenarioOrder
from workflows.scenario import Scenario

SCENARIO = ScenarioOrder("r", "a feature", "a scenario", {}, timedelta(minutes=10))


@pytest.mark.anyio
async def test_access_is_tried_step_by_step(client: Client, worker: Callable[..., Worker]) -> None:
    world = World()
    order = AccessOrder([TENANT], [TENANT])
    request = DoorRequest(TENANT, Door.GATEWAY, "get", "secrets", "tenant-b-1", "password")
    withdrawn = WithdrawnTokenOrder(TENANT, Withdrawal.SECRET, timedelta(seconds=30), {})
    async with worker(*world.activities):
        handle = await client.start_workflow(Scenario.run, SCENARIO, id="access", task_queue=TASK_QUEUE)
        matrix = await handle.execute_update(Scenario.try_everything, order, id="001")
        again = await handle.execute_update(Scenario.try_everything, order, id="001")
        await handle.execute_update(Scenario.create_secret, SecretOrder("tenant-b-1", "password", {}))
        answer = await handle.execute_update(Scenario.request_at_door, request)
        token = await handle.execute_update(Scenario.withdraw_token, withdrawn)
        logged = await handle.execute_update(Scenario.read_logs, token.last.request_id)
        await handle.signal(Scenario.end)
        assert await handle.result() == []
    assert matrix == again == MATRIX
    assert answer == DoorAnswer(403, "Forbidden", "no", "id")
    assert (token.last.code, token.let_in_for) == (401, timedelta(seconds=9))
    assert logged == LoggedReason("unauthenticated", "why", 0, [])
    assert world.calls == [
        "try_everything",
        "create_secret password",
        "request_at_door gateway",
        "withdraw_token secret",
        "read_logs id",
    ]
