"""What was recorded of real runs is replayed by the workflows as they are now.

A worker that is started anew, by a crash or by the next run, takes open workflows up from their histories. Where
their code would now do other things than are on record, Temporal refuses to go on. So a change that makes a test here
fail breaks what is under way: undoing above all. If that is meant, `make histories` records anew.
"""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from activities.virtual_machines import VirtualMachines
from tests.workflows.histories import Manner, load, name_of, recorded, text_in, updates_in
from virtflow.temporal import DATA_CONVERTER
from virtflow.worker import WORKFLOWS
from workflows.models import VirtualMachineOrder, VirtualMachineRef, VirtualMachineWait
from workflows.options import waiting
from workflows.scenario import Scenario

KIBIBYTES = 300
PATHS = re.compile(r"/(?:home|root|tmp|work|var|opt|srv|usr|Users)/")
TOKEN = "eyJ"

histories = pytest.mark.parametrize("file", recorded(), ids=lambda file: file.name.partition(".")[0])


async def replay(history: WorkflowHistory, *workflows: type) -> None:
    replayer = Replayer(
        workflows=workflows,
        data_converter=DATA_CONVERTER,
        # As the worker does.
        workflow_runner=UnsandboxedWorkflowRunner(),
        # But not with its exception types: what does not replay would fail the workflow, and nobody would be told.
    )
    await replayer.replay_workflow(history)


@pytest.mark.anyio
@histories
async def test_it_replays(file: Path) -> None:
    await replay(load(file), *WORKFLOWS)


@workflow.defn(name="CreateVirtualMachine")
class WaitFirst:
    """The same in another order."""

    @workflow.run
    async def run(self, order: VirtualMachineOrder) -> None:
        wait = VirtualMachineWait(VirtualMachineRef("", "", ""), order.running_within)
        await workflow.execute_activity_method(VirtualMachines.await_running, wait, **waiting(wait.within))


@workflow.defn(name="CreateVirtualMachine")
class Patient:
    """The same, a moment later."""

    @workflow.run
    async def run(self, _order: VirtualMachineOrder) -> None:
        await workflow.sleep(timedelta(seconds=1))


@pytest.mark.anyio
@pytest.mark.parametrize("changed", [WaitFirst, Patient])
async def test_another_order_does_not_replay(changed: type) -> None:
    [file] = [file for file in recorded() if name_of(file) == ("CreateVirtualMachine", Manner.PASSED)]
    with pytest.raises(workflow.NondeterminismError):
        await replay(load(file), changed)


def test_of_each_workflow_each_manner_is_recorded() -> None:
    wanted = {(each.__name__, manner) for each in WORKFLOWS for manner in Manner}
    assert {name_of(file) for file in recorded()} == wanted


def test_each_update_of_a_scenario_is_recorded() -> None:
    """And so every step of the features: `make histories` takes them from a run."""
    of_scenario = {name for name in vars(Scenario) if hasattr(getattr(Scenario, name), "validator")}
    seen = {update for file in recorded() for update in updates_in(load(file))}
    assert seen == of_scenario


@histories
def test_it_is_what_it_is_called(file: Path) -> None:
    kind, manner = name_of(file)
    history = load(file)
    events = [event.event_type for event in history.events]
    assert history.events[0].workflow_execution_started_event_attributes.workflow_type.name == kind
    is_cancelled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED in events
    assert is_cancelled == (manner is Manner.CANCELLED)
    workers = {
        event.workflow_task_completed_event_attributes.identity
        for event in history.events
        if event.HasField("workflow_task_completed_event_attributes")
    }
    assert len(workers) > 1 or manner is not Manner.RESUMED
    has_failure = '"failure":{' in text_in(file)
    assert has_failure or manner is not Manner.FAILED
    assert not has_failure or manner in (Manner.FAILED, Manner.CANCELLED)


@histories
def test_it_says_nothing_of_tokens_and_of_the_machine_it_was_made_on(file: Path) -> None:
    text = text_in(file)
    assert '"json/plain":' in text
    assert TOKEN not in text
    assert PATHS.findall(text) == []
    identities = re.findall(r'"identity":"([^"]*)"', text)
    assert identities
    assert {identity.rpartition("-")[0] for identity in identities} == {"process"}


def test_they_are_small() -> None:
    assert sum(file.stat().st_size for file in recorded()) < KIBIBYTES * 1024
