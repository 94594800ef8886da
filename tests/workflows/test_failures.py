"""What comes of an activity that fails, by Temporal's own retries: tried again or not, and whose fault it is."""

import asyncio
from collections.abc import Callable

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError, WorkflowUpdateStage
from temporalio.worker import Worker

from activities.errors import gave_up, refusals_are_final
from tests.workflows.conftest import TASK_QUEUE
from virtflow.errors import BugError, CancelledError, InfrastructureError, TimedOutError, VirtflowError
from virtflow.kube import KubeError
from virtflow.verdicts import verdict_on
from workflows.models import ScenarioOrder
from workflows.options import IDLE_TIMEOUT
from workflows.scenario import Scenario

pytestmark = pytest.mark.anyio


class Failing:
    """An activity that fails with one error, always."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.tries = 0

    @activity.defn
    async def list_names(self, _namespace: str) -> list[str]:
        self.tries += 1
        with refusals_are_final():
            raise self._error


async def start(client: Client) -> WorkflowHandle[Scenario, list[str]]:
    order = ScenarioOrder("run", "feature", "scenario", {}, IDLE_TIMEOUT)
    return await client.start_workflow(Scenario.run, order, id="scenario", task_queue=TASK_QUEUE)


async def verdict_of(failing: Failing, client: Client, worker: Callable[..., Worker]) -> VirtflowError:
    async with worker(failing.list_names):
        handle = await start(client)
        step = asyncio.create_task(handle.execute_update(Scenario.list_virtual_machines, "namespace"))
        # The server skips time for who waits for a workflow's end alone: here, until nobody has spoken to it.
        await handle.result()
        with pytest.raises(WorkflowUpdateFailedError) as raised:
            await step
    return verdict_on(raised.value)


def answer(code: int, message: str) -> KubeError:
    return KubeError(code, {"reason": "Because", "message": message}, "GET /api")


@pytest.mark.parametrize(
    ("error", "verdict", "words"),
    [
        (answer(404, "there is none"), VirtflowError, "GET /api: 404 Because: there is none"),
        (answer(403, "you may not"), VirtflowError, "GET /api: 403 Because: you may not"),
        (answer(422, "that is no name"), VirtflowError, "GET /api: 422 Because: that is no name"),
        (gave_up("It did not run."), TimedOutError, "It did not run."),
        (KeyError("foot"), BugError, "Activity list_names failed: KeyError: 'foot'."),
    ],
)
async def test_what_would_be_the_same_again_is_tried_once(
    client: Client, worker: Callable[..., Worker], error: Exception, verdict: type[VirtflowError], words: str
) -> None:
    failing = Failing(error)
    told = await verdict_of(failing, client, worker)
    assert type(told) is verdict
    assert str(told).startswith(words)
    assert failing.tries == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answer(503, "not yet"), "KubeError: GET /api: 503 Because: not yet"),
        (answer(409, "somebody was quicker"), "KubeError: GET /api: 409 Because: somebody was quicker"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionRefusedError("nobody is there"), "ConnectionRefusedError: nobody is there"),
        (RuntimeError("who knows"), "RuntimeError: who knows"),
    ],
)
async def test_who_is_away_is_asked_again_until_the_time_is_over(
    client: Client, worker: Callable[..., Worker], error: Exception, words: str
) -> None:
    failing = Failing(error)
    told = await verdict_of(failing, client, worker)
    assert type(told) is InfrastructureError
    assert str(told).startswith(
        f"Activity list_names was tried again and again until its time was over. The last try: {words}."
    )
    assert failing.tries > 20, "two minutes, of which a pause takes five seconds at most"


async def test_a_step_after_a_cancellation_hears_that_there_was_one(
    client: Client, worker: Callable[..., Worker]
) -> None:
    failing = Failing(answer(503, "not yet"))
    async with worker(failing.list_names):
        handle = await start(client)
        step = await handle.start_update(
            Scenario.list_virtual_machines, "namespace", wait_for_stage=WorkflowUpdateStage.ACCEPTED
        )
        await handle.cancel()
        with pytest.raises(WorkflowUpdateFailedError) as raised:
            await step.result()
        await handle.result()
    told = verdict_on(raised.value)
    assert (type(told), str(told)) == (CancelledError, "This scenario was cancelled.")
