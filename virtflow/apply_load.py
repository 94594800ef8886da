"""`virtflow load`: load on a replica set of virtual machines, with what the autoscaler makes of it, line by line.

The replica set is made by a Scenario like any other, so that it is undone even if this process is killed.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.table import Table
from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from activities.load import plan_of
from clusters.endpoints import Endpoints
from load.results import LoadProgress, LoadResult
from load.runner import run_load
from virtflow.errors import LeftBehindError, VirtflowError
from virtflow.kube import Informer, KubeClient
from virtflow.kube.resources import HPAS, VMIRS
from virtflow.sequence.scale import current_utilization
from virtflow.temporal import TASK_QUEUE, answering, connect
from virtflow.terminal import console, phase
from workflows.failures import words_of
from workflows.labels import labels_of
from workflows.models import LoadOrder, ReplicaSetOrder, ReplicaSetRef, ScenarioOrder
from workflows.scenario import Scenario
from workflows.tenant_models import TenantOrder

__all__ = ["apply_load"]

MANIFESTS = Path(__file__).parents[1] / "features" / "manifests"
READY_WITHIN = timedelta(minutes=1)
RAMP_SHARE = 10
"""The ramp is a tenth of the duration."""
WAIT_WORTH_TELLING = timedelta(seconds=2)


async def apply_load(endpoints: Endpoints, folder: Path, users: int, duration: timedelta) -> None:
    """Make a replica set, put the load on it, and show what happens until the load is over.

    `folder` is that of the cluster's Locust, and gets a folder for this load.
    """
    with answering():
        await _apply_load(endpoints, folder, users, duration)


async def _apply_load(endpoints: Endpoints, folder: Path, users: int, duration: timedelta) -> None:
    name = f"load-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    temporal = await connect(endpoints)
    # It must outlive the load, during which nobody speaks to it.
    order = ScenarioOrder(name, "load", name, labels_of(name), duration + timedelta(minutes=10))
    session = await temporal.start_workflow(Scenario.run, order, id=name, task_queue=TASK_QUEUE)
    try:
        with phase("Making a replica set with an autoscaler"):
            target = await _make_replica_set(session, order)
        ramp = duration / RAMP_SHARE
        load = LoadOrder(target, users, ramp, duration - ramp)
        async with await KubeClient.connect(endpoints.kubeconfig) as kube, _scaling(kube, target) as scaling:
            console.print("\n  time  users  req/s failed      P95   ready of wanted  CPU of request")
            result = await run_load(
                plan_of(load, endpoints), folder / name, lambda progress: _show(progress, scaling)
            )
        _summarize(result)
    except WorkflowUpdateFailedError as error:
        raise VirtflowError(f"The replica set could not be made: {words_of(error)}") from error
    finally:
        await session.signal(Scenario.end)
        with phase("Removing the replica set"):
            if left := await session.result():
                raise LeftBehindError(f"Not everything could be removed: {'; '.join(left)}")
    if result.latencies.failed == result.requests:
        raise VirtflowError(f"All {result.requests} requests failed. `virtflow logs guests` may say why.")


async def _make_replica_set(session: WorkflowHandle[Scenario, list[str]], order: ScenarioOrder) -> ReplicaSetRef:
    tenant = await session.execute_update(
        Scenario.create_tenant, TenantOrder(order.run_id, order.run_id, order.labels)
    )
    replica_set, autoscaler = ((MANIFESTS / name).read_text() for name in ("test-vmirs.yaml", "test-hpa.yaml"))
    return await session.execute_update(
        Scenario.create_replica_set,
        ReplicaSetOrder(tenant.namespace, replica_set, autoscaler, order.labels, READY_WITHIN),
    )


class _Scaling:
    """What the replica set and its autoscaler say now."""

    def __init__(self, target: ReplicaSetRef, replica_sets: Informer, autoscalers: Informer) -> None:
        self._target = target
        self._replica_sets = replica_sets
        self._autoscalers = autoscalers

    def __str__(self) -> str:
        target = self._target
        replica_set = self._replica_sets.get(target.namespace, target.name) or {}
        autoscaler = self._autoscalers.get(target.namespace, target.autoscaler) or {}
        wanted = replica_set.get("spec", {}).get("replicas", 0)
        ready = replica_set.get("status", {}).get("readyReplicas", 0)
        utilization = current_utilization(autoscaler.get("status", {}).get("currentMetrics"))
        return f"{ready:>4} of {wanted:<4} {'unknown' if utilization is None else f'{utilization} %':>8}"


@contextlib.asynccontextmanager
async def _scaling(kube: KubeClient, target: ReplicaSetRef) -> AsyncIterator[_Scaling]:
    replica_sets = Informer(kube, VMIRS, namespace=target.namespace)
    autoscalers = Informer(kube, HPAS, namespace=target.namespace)
    async with replica_sets.running(), autoscalers.running():
        yield _Scaling(target, replica_sets, autoscalers)


def _show(progress: LoadProgress, scaling: _Scaling) -> None:
    failed = sum(progress.failures.values())
    console.print(
        f"{progress.elapsed.total_seconds():>5.0f}s {progress.users:>6} {progress.rps:>6.1f} {failed:>6} "
        f"{_milliseconds(progress.latencies.p95):>8}   {scaling}"
    )


def _summarize(result: LoadResult) -> None:
    whole = result.latencies
    table = Table("requests", "failed", "P50", "P95", "P99", "users that never started", box=None, pad_edge=False)
    percentiles = (_milliseconds(value) for value in (whole.p50, whole.p95, whole.p99))
    table.add_row(str(whole.n), str(whole.failed), *percentiles, str(result.never_started))
    console.print()
    console.print(table)
    if result.waited > WAIT_WORTH_TELLING:
        console.print(
            f"It waited {result.waited.total_seconds():.0f} s for its turn: Locust was busy with other loads."
        )
    if result.restarted:
        console.print("Locust died on the way and began it again: what it did before is not in these figures.")
    console.print()


def _milliseconds(value: timedelta | None) -> str:
    # A failed request counts as slower than any answer: a percentile among the failures has no time.
    return "failed" if value is None else f"{value / timedelta(milliseconds=1):.0f} ms"
