"""Records what test_histories.py replays, from real runs on a cluster: `make histories`.

How workflows pass is taken from the last run of the features: of each kind the shortest history, and of scenarios as
many as have every update among them. How they fail, are cancelled, and go on when their worker was killed, is done
here. What was recorded before is replaced.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import yaml
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowHistory,
    WorkflowUpdateFailedError,
    WorkflowUpdateStage,
)
from temporalio.service import RPCError

from clusters.local import LocalCluster
from tests.workflows.histories import Manner, recorded, updates_in, write
from virtflow.errors import InputError
from virtflow.settings import Settings
from virtflow.temporal import TASK_QUEUE, connect
from virtflow.tenant_files import load_tenant
from virtflow.terminal import console, phase
from workflows.journey_models import JourneyLoad, JourneyOrder
from workflows.labels import SCENARIO, labels_of
from workflows.models import (
    AutoscaleOrder,
    LoadOrder,
    ReplicaSetOrder,
    ReplicaSetRef,
    ScenarioOrder,
    VirtualMachineOrder,
)
from workflows.options import IDLE_TIMEOUT
from workflows.quota_models import PressOrder
from workflows.scenario import Scenario
from workflows.tenant_journey import TenantJourney
from workflows.tenant_models import Tenant, TenantOrder, TenantSpec

KIND = "recording"
RUN = f"{KIND}-{os.getpid()}"
"""Another each time: a load is found again by its name."""
FEATURES = Path(__file__).parents[2] / "features"
MINUTES = timedelta(minutes=5)
MOMENT = timedelta(seconds=3)
USERS, RAMP = 28, timedelta(seconds=3)
POLL = 0.1
WITHIN = 120.0
"""Seconds: for what only has to begin."""

Handle = WorkflowHandle[Any, Any]


def read(name: str) -> str:
    return (FEATURES / "manifests" / name).read_text()


def nowhere() -> str:
    """A virtual machine that no node takes."""
    body = yaml.safe_load(read("test-vm.yaml"))
    body["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "nowhere"}
    return yaml.safe_dump(body)


class Stage:
    """A scenario's session with a tenant and, where asked for, a replica set."""

    def __init__(self, temporal: Client, name: str) -> None:
        self._id = f"{RUN}/{name}"
        self.labels = labels_of(self._id)
        self._temporal = temporal
        self._name = name

    async def begin(self, spec: TenantSpec) -> None:
        order = ScenarioOrder(RUN, "a feature", self._name, self.labels, IDLE_TIMEOUT)
        self.handle = await self._temporal.start_workflow(Scenario.run, order, id=self._id, task_queue=TASK_QUEUE)
        tenant = TenantOrder("tenant-a", f"tenant-a-{self.labels[SCENARIO]}", self.labels, spec)
        self.tenant: Tenant = await self.handle.execute_update(Scenario.create_tenant, tenant)

    async def make_replica_set(self) -> None:
        order = ReplicaSetOrder(
            self.tenant.namespace, read("test-vmirs.yaml"), read("test-hpa.yaml"), self.labels, MINUTES
        )
        self.target: ReplicaSetRef = await self.handle.execute_update(Scenario.create_replica_set, order)

    def machine(self, manifest: str, running_within: timedelta) -> VirtualMachineOrder:
        return VirtualMachineOrder(self.tenant, manifest, self.labels, running_within)

    def autoscaling(self, hold: timedelta) -> AutoscaleOrder:
        return AutoscaleOrder(self.target, LoadOrder(self.target, USERS, RAMP, hold), MINUTES, MINUTES)

    def pressing(self, hold: timedelta) -> PressOrder:
        return PressOrder(self.target, LoadOrder(self.target, USERS, RAMP, hold), MINUTES)

    async def start(self, update: Any, order: object) -> Any:
        return await self.handle.start_update(update, order, wait_for_stage=WorkflowUpdateStage.ACCEPTED)

    def child(self, name: str) -> Handle:
        return self._temporal.get_workflow_handle(f"{self.handle.id}/{name}")

    async def end(self) -> None:
        await self.handle.signal(Scenario.end)
        assert await self.handle.result() == []


class Recorder:
    """Each of its methods leads to histories of one manner."""

    def __init__(self, temporal: Client, cluster: LocalCluster) -> None:
        self._temporal = temporal
        self._cluster = cluster

    async def fail(self) -> None:
        stage = Stage(self._temporal, "failed")
        await stage.begin(TenantSpec())
        await stage.make_replica_set()
        for update, order in (
            (Scenario.create_virtual_machine, stage.machine(nowhere(), MOMENT)),
            (Scenario.autoscale_under_load, stage.autoscaling(MOMENT)),
            (Scenario.press_autoscaler, stage.pressing(MOMENT)),
        ):
            await _refused(stage.handle.execute_update(update, order))  # type: ignore[arg-type]
        await stage.end()
        await keep(Manner.FAILED, stage.handle, *map(stage.child, ("create-1", "autoscale-2", "press-3")))

    async def cancel(self) -> None:
        stage = Stage(self._temporal, "cancelled")
        await stage.begin(TenantSpec())
        await stage.make_replica_set()
        updates = [
            await stage.start(Scenario.create_virtual_machine, stage.machine(nowhere(), MINUTES)),
            await stage.start(Scenario.autoscale_under_load, stage.autoscaling(MINUTES)),
            await stage.start(Scenario.press_autoscaler, stage.pressing(MINUTES)),
        ]
        children = [stage.child(name) for name in ("create-1", "autoscale-2", "press-3")]
        for child, activity in zip(children, ("await_running", "await_settled", "await_stuck"), strict=True):
            await until_in(child, activity)
        await stage.handle.cancel()
        for update in updates:
            await _refused(update.result())
        assert await stage.handle.result() == []
        await keep(Manner.CANCELLED, stage.handle, *children)

    async def resume(self) -> None:
        """Kill the worker while everything is under way, and let it go on."""
        one, other = Stage(self._temporal, "resumed"), Stage(self._temporal, "pressed")
        await one.begin(TenantSpec())
        await other.begin(load_tenant(FEATURES / "tenants" / "two-machines.yaml").spec)
        for stage in (one, other):
            await stage.make_replica_set()
        scaling = await one.start(Scenario.autoscale_under_load, one.autoscaling(MINUTES))
        pressing = await other.start(Scenario.press_autoscaler, other.pressing(MINUTES))
        await until_in(one.child("autoscale-1"), "await_settled")
        await until_in(other.child("press-1"), "await_stuck")
        # While virt-controller holds its breath, what is created does not run.
        with self._stopped("virt-controller"):
            creating = await one.start(Scenario.create_virtual_machine, one.machine(read("test-vm.yaml"), MINUTES))
            journey = await self._journey("resumed", read("test-vm.yaml"), MINUTES, load=False)
            await until_in(one.child("create-2"), "await_running")
            await until_in(self._temporal.get_workflow_handle(f"{journey.id}/create"), "await_running")
            await self._kill_worker()
        for update in (creating, scaling, pressing):
            await update.result()
        assert (await journey.result()).stopped_at is None
        await one.end()
        await other.end()
        await keep(
            Manner.RESUMED,
            journey,
            one.handle,
            one.child("create-2"),
            one.child("autoscale-1"),
            other.child("press-1"),
        )

    async def pass_journey(self) -> None:
        journey = await self._journey("passed", read("test-vm.yaml"), MINUTES, load=True)
        assert (await journey.result()).stopped_at is None
        await keep(Manner.PASSED, journey)

    async def fail_journey(self) -> None:
        journey = await self._journey("failed", nowhere(), MOMENT, load=False)
        assert (await journey.result()).stopped_at is not None
        await keep(Manner.FAILED, journey)

    async def cancel_journey(self) -> None:
        journey = await self._journey("cancelled", read("test-vm.yaml"), MINUTES, load=True)
        await until_in(self._temporal.get_workflow_handle(f"{journey.id}/autoscale"), "await_settled")
        await journey.cancel()
        await _refused(journey.result())
        await keep(Manner.CANCELLED, journey)

    async def _journey(self, name: str, manifest: str, within: timedelta, *, load: bool) -> Handle:
        journey_id = f"{RUN}/journey/{name}"
        tenant = TenantOrder("tenant-a", f"journey-{labels_of(journey_id)[SCENARIO]}", labels_of(journey_id))
        wanted = JourneyLoad(
            read("test-vmirs.yaml"), read("test-hpa.yaml"), USERS, RAMP, MINUTES, MINUTES, MINUTES, MINUTES
        )
        order = JourneyOrder(tenant, manifest, within, wanted if load else None)
        return await self._temporal.start_workflow(TenantJourney.run, order, id=journey_id, task_queue=TASK_QUEUE)

    @contextlib.contextmanager
    def _stopped(self, component: str) -> Iterator[None]:
        process = psutil.Process(self._pid_of(component))
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    async def _kill_worker(self) -> None:
        killed = self._pid_of("worker")
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(WITHIN):
            while self._pid_of("worker") in (killed, 0):  # noqa: ASYNC110 - another process starts it
                await asyncio.sleep(POLL)

    def _pid_of(self, component: str) -> int:
        return next(each.pid or 0 for each in self._cluster.status() if each.name == component)


async def until_in(handle: Handle, activity: str) -> None:
    """Until a workflow waits for this activity."""
    async with asyncio.timeout(WITHIN):
        while True:
            with contextlib.suppress(RPCError):  # it has not been started yet
                pending = (await handle.describe()).raw_description.pending_activities
                if any(each.activity_type.name == activity for each in pending):
                    return
            await asyncio.sleep(POLL)


async def _refused(result: Awaitable[object]) -> None:
    try:
        await result
    except (WorkflowUpdateFailedError, WorkflowFailureError):
        return
    raise AssertionError("it was to fail, and passed")


async def keep(manner: Manner, *handles: Handle) -> None:
    for handle in handles:
        workflow = (await handle.describe()).workflow_type
        write(workflow, manner, 1, await handle.fetch_history())


async def keep_passed(temporal: Client) -> None:
    """Of the last run of the features, instead of all that was recorded before."""
    runs: dict[str, list[WorkflowExecution]] = {}
    async for each in temporal.list_workflows("ExecutionStatus = 'Completed'"):
        if not each.id.startswith(KIND):
            runs.setdefault(each.id.partition("/")[0], []).append(each)
    if not runs:
        raise InputError("No run of the features is on record here. Type `virtflow e2e --keep` first.")
    for file in recorded():
        file.unlink()
    histories: dict[str, list[WorkflowHistory]] = {}
    for each in max(runs.values(), key=lambda run: max(each.start_time for each in run)):
        history = await temporal.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
        histories.setdefault(each.workflow_type, []).append(history)
    for workflow, found in histories.items():
        found.sort(key=lambda history: len(history.events))
        chosen = cover(found) if workflow == Scenario.__name__ else found[:1]
        for number, history in enumerate(chosen, 1):
            write(workflow, Manner.PASSED, number, history)


def cover(histories: Sequence[WorkflowHistory]) -> list[WorkflowHistory]:
    """So many of them, short ones first, that every update is among them that is in any."""
    chosen: list[WorkflowHistory] = []
    seen: set[str] = set()
    # Seldom ones first: the scenario that has one has the usual ones, too.
    times = Counter(update for history in histories for update in set(updates_in(history)))
    for update in sorted(times, key=lambda update: (times[update], update)):
        if update not in seen:
            chosen.append(next(history for history in histories if update in updates_in(history)))
            seen.update(updates_in(chosen[-1]))
    return chosen


async def record(cluster: LocalCluster) -> None:
    temporal = await connect(cluster.endpoints())
    cluster.restart_worker()
    recorder = Recorder(temporal, cluster)
    with phase("Passed: what the features left on record"):
        await keep_passed(temporal)
    with phase("Failed and cancelled, and a journey"):
        async with asyncio.TaskGroup() as group:
            for act in (
                recorder.fail,
                recorder.cancel,
                recorder.pass_journey,
                recorder.fail_journey,
                recorder.cancel_journey,
            ):
                group.create_task(act())
    with phase("Resumed: the worker is killed"):
        await recorder.resume()
    size = sum(file.stat().st_size for file in recorded()) / 1024
    console.print(f"{len(recorded())} histories, {size:.0f} KiB")


if __name__ == "__main__":
    asyncio.run(record(LocalCluster(Settings())))
    # As the command line does: with a Temporal client, Python's own way out is not safe.
    sys.stdout.flush()
    os._exit(0)
