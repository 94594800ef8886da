"""`virtflow journey`: many tenants go through the whole diagram at once, each as a workflow of its own.

The workflows need nobody: if this process is killed they go on to their end and clean up after themselves.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import CancelledError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from clusters.local import LocalCluster
from virtflow.errors import InfrastructureError, LeftBehindError
from virtflow.exit_codes import ExitCode, worst
from virtflow.interrupts import undo
from virtflow.journey_report import Journey, failures_of, table_of, write_journeys
from virtflow.settings import Settings
from virtflow.temporal import TASK_QUEUE, answering, connect, patiently
from virtflow.terminal import console, phase
from virtflow.verdicts import VERDICTS
from workflows.failures import words_of
from workflows.journey_models import JourneyLoad, JourneyOrder, JourneyPhase, TenantJourneyOutcome
from workflows.labels import SCENARIO, labels_of, run_of
from workflows.options import UNDONE_LIMIT
from workflows.tenant_journey import PHASE, TenantJourney
from workflows.tenant_models import TenantOrder

__all__ = ["Handle", "codes_of", "journey_order", "journey_orders", "run_journeys", "travel", "travelled"]

MANIFESTS = Path(__file__).parents[1] / "features" / "manifests"
PHASE_LIMIT = timedelta(minutes=5)
"""Long, because many share one cluster: how long it took is the result, not the limit."""
LOAD_RAMP = timedelta(seconds=5)
JOURNEYS_LIMIT = timedelta(hours=1)
WORKER_LIMIT = timedelta(seconds=30)
PROGRESS_EVERY = timedelta(seconds=1)
POLL = timedelta(milliseconds=200)

Handle = WorkflowHandle[TenantJourney, TenantJourneyOutcome]


def run_journeys(settings: Settings, *, tenants: int, users: int | None) -> ExitCode:
    """Run and report; return the exit code. `users` put load on each tenant's replica set, if given.

    Uses the cluster that is up, or brings one up and takes it down.
    """
    run_id = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    report = Path.cwd() / "reports" / run_id
    report.mkdir(parents=True)
    orders = journey_orders(run_id, tenants, users)
    with _cluster(settings) as cluster, answering():
        return asyncio.run(_run(cluster, orders, report))


def journey_orders(run_id: str, tenants: int, users: int | None) -> dict[str, JourneyOrder]:
    """By workflow id. All of it derived from the run's id, so that two runs never share a namespace."""

    return dict(journey_order(run_id, number, users) for number in range(1, tenants + 1))


def journey_order(run_id: str, number: int, users: int | None) -> tuple[str, JourneyOrder]:
    """One of them, behind its workflow id."""

    def read(name: str) -> str:
        return (MANIFESTS / name).read_text()

    load = None
    if users is not None:
        load = JourneyLoad(
            read("test-vmirs.yaml"),
            read("test-hpa.yaml"),
            users,
            ramp=LOAD_RAMP,
            hold=PHASE_LIMIT,
            ready_within=PHASE_LIMIT,
            settled_within=PHASE_LIMIT,
            scaled_in_within=PHASE_LIMIT,
        )
    name = f"tenant-{number:03}"
    workflow_id = f"{run_id}/journey/{name}"
    labels = labels_of(workflow_id)
    tenant = TenantOrder(name, f"{name}-{labels[SCENARIO]}", labels)
    return workflow_id, JourneyOrder(tenant, read("test-vm.yaml"), PHASE_LIMIT, load)


@contextlib.contextmanager
def _cluster(settings: Settings) -> Iterator[LocalCluster]:
    """The cluster that is up, with a worker of this checkout's code; or one for this block."""
    cluster = LocalCluster(settings)
    started_here = not cluster.is_up()
    try:
        cluster.up()
        if not started_here:
            cluster.restart_worker()
        yield cluster
    finally:
        if started_here and not settings.keep:
            undo(f"Taking down cluster {cluster.name}", cluster.down)


async def _run(cluster: LocalCluster, orders: dict[str, JourneyOrder], report: Path) -> ExitCode:
    endpoints = cluster.endpoints()
    temporal = await connect(endpoints)
    with phase("Waiting for the worker"):
        await _until_the_worker_polls(temporal, cluster)
    journeys = await travel(temporal, orders)
    write_journeys(report / "journeys.json", journeys)
    console.print()
    console.print(table_of(journeys, next(iter(orders.values())).phases))
    console.print()
    console.print(failures_of(journeys))
    console.print(f"KubeVirt: {endpoints.kubevirt}", markup=False)
    console.print(f"Report: {report / 'journeys.json'}", markup=False)
    return worst([code for journey in journeys for code in codes_of(journey)])


def codes_of(journey: Journey) -> Iterator[ExitCode]:
    """What a journey that has ended makes of the whole command."""
    if journey.left:
        yield ExitCode.LEFT_BEHIND
    failed_by = journey.outcome.failed_by if journey.outcome else None
    if failed_by:
        yield VERDICTS[failed_by].exit_code
    elif journey.failure:
        yield ExitCode.FAILED


async def travel(temporal: Client, orders: dict[str, JourneyOrder]) -> list[Journey]:
    """Start every journey and return when all have ended, however each did. Cancelled, cancel and await them."""
    tasks = [asyncio.create_task(travelled(temporal, workflow_id, order)) for workflow_id, order in orders.items()]
    try:
        with phase(f"{len(tasks)} tenants") as show:
            await _watched(temporal, tasks, orders, show)
    except BaseException:  # Ctrl-C comes as a cancellation, or as itself if it meets this very code
        await _cancel(temporal, orders)
        raise
    finally:
        for task in tasks:
            task.cancel()
    return [task.result() for task in tasks]


async def travelled(temporal: Client, workflow_id: str, order: JourneyOrder) -> Journey:
    """Start a journey and return its end, however it ended. Temporal may be gone for a while."""

    async def start() -> Handle:
        return await temporal.start_workflow(
            TenantJourney.run,
            order,
            id=workflow_id,
            task_queue=TASK_QUEUE,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        )

    # Started already, it was by a try whose answer got lost.
    with contextlib.suppress(WorkflowAlreadyStartedError):
        await patiently(start)
    return await _end_of(temporal.get_workflow_handle_for(TenantJourney.run, workflow_id), order.tenant.name)


async def _end_of(handle: Handle, tenant: str) -> Journey:
    try:
        outcome = await patiently(handle.result)
    except WorkflowFailureError as error:
        problem = words_of(error)
        if isinstance(error.cause, CancelledError):
            return Journey(tenant, handle.id, problem=problem)
        hint = f"`virtflow gc --run {run_of(handle.id)}` lists what it left"
        return Journey(tenant, handle.id, problem=problem, left=[f"{problem}; {hint}"])
    return Journey(tenant, handle.id, outcome, left=outcome.left)


async def _watched(
    temporal: Client,
    tasks: list[asyncio.Task[Journey]],
    orders: dict[str, JourneyOrder],
    show: Callable[[str], None],
) -> None:
    deadline = asyncio.get_running_loop().time() + JOURNEYS_LIMIT.total_seconds()
    pending: set[asyncio.Task[Journey]] = set(tasks)
    while pending:
        done, pending = await asyncio.wait(
            pending, timeout=PROGRESS_EVERY.total_seconds(), return_when=asyncio.FIRST_EXCEPTION
        )
        for task in done:
            task.result()
        if asyncio.get_running_loop().time() > deadline:
            raise InfrastructureError(
                f"{len(pending)} of {len(tasks)} journeys have not ended after {JOURNEYS_LIMIT}. `virtflow status` "
                f"shows whether the worker and Temporal run, `virtflow logs worker` what the worker says."
            )
        # One that only shows how far they are must not end them.
        with contextlib.suppress(RPCError):
            show(await _progress(temporal, orders))


async def _progress(temporal: Client, orders: dict[str, JourneyOrder]) -> str:
    """How many journeys have passed which phase last, by one list of their memos."""
    run = next(iter(orders)).rpartition("/")[0]
    passed: Counter[str] = Counter()
    async for execution in temporal.list_workflows(
        f"WorkflowType = 'TenantJourney' AND WorkflowId STARTS_WITH '{run}/'"
    ):
        memo = await execution.memo()
        is_running = execution.status is WorkflowExecutionStatus.RUNNING
        passed[memo.get(PHASE, "started") if is_running else "ended"] += 1
    return ", ".join(f"{passed[name]} {name}" for name in ("started", *JourneyPhase, "ended") if passed[name])


async def _cancel(temporal: Client, orders: dict[str, JourneyOrder]) -> None:
    handles = {
        order.tenant.name: temporal.get_workflow_handle_for(TenantJourney.run, workflow_id)
        for workflow_id, order in orders.items()
    }
    with phase(f"Cancelling and undoing, at most {UNDONE_LIMIT / timedelta(minutes=1):.0f} minutes"):
        try:
            async with asyncio.timeout(UNDONE_LIMIT.total_seconds()):
                await asyncio.gather(*(_cancelled(handle) for handle in handles.values()))
                journeys = await asyncio.gather(*(_end_of(handle, tenant) for tenant, handle in handles.items()))
        except TimeoutError:
            raise LeftBehindError(
                f"Not every journey was undone within {UNDONE_LIMIT}. They go on by themselves."
            ) from None
    left = [journey for journey in journeys if journey.left]
    console.print(failures_of(left) if left else "Everything the journeys made is gone.")


async def _cancelled(handle: Handle) -> None:
    try:
        await handle.cancel()
    except RPCError as error:
        # Ended, or never started.
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


async def _until_the_worker_polls(temporal: Client, cluster: LocalCluster) -> None:
    """A journey's time begins when it is asked for: a worker that still starts would be counted as the cluster's."""
    request = DescribeTaskQueueRequest(
        namespace=temporal.namespace,
        task_queue=TaskQueue(name=TASK_QUEUE),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
    )
    try:
        async with asyncio.timeout(WORKER_LIMIT.total_seconds()):
            while True:
                worker = next(each.pid for each in cluster.status() if each.name == "worker")
                answer = await temporal.workflow_service.describe_task_queue(request)
                # Those of a worker that has ended are listed for some minutes.
                if any(poller.identity.startswith(f"{worker}@") for poller in answer.pollers):
                    return
                await asyncio.sleep(POLL.total_seconds())
    except TimeoutError:
        raise InfrastructureError(
            f"The worker did not ask Temporal for work within {WORKER_LIMIT.total_seconds():.0f} s. "
            f"`virtflow logs worker` says why."
        ) from None
