"""Journeys on a real cluster, and what happens to them when a process they run in is killed."""

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import psutil
import pytest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from virtflow.journey import journey_orders, travel
from virtflow.kube import KubeClient
from virtflow.kube.resources import NAMESPACES
from virtflow.sequence.audit import write_of
from virtflow.settings import Settings
from virtflow.temporal import connect
from workflows.journey_models import JourneyOrder
from workflows.tenant_journey import PHASE, TenantJourney

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def temporal(endpoints: Endpoints) -> Client:
    return await connect(endpoints)


@pytest.fixture
def orders() -> dict[str, JourneyOrder]:
    return journey_orders(f"it-{uuid.uuid4().hex[:8]}", tenants=3, users=None)


def worker_of(cluster: LocalCluster) -> int:
    return next(each.pid for each in cluster.status() if each.name == "worker" and each.pid is not None)


async def until_one_is_on_its_way(temporal: Client, workflow_ids: list[str]) -> None:
    """Until a tenant is made: the others are somewhere before or after that."""
    with anyio.fail_after(60):
        while True:
            for workflow_id in workflow_ids:
                with contextlib.suppress(RPCError):  # it has not been started yet
                    description = await temporal.get_workflow_handle(workflow_id).describe()
                    if PHASE in await description.memo():
                        return
            await asyncio.sleep(0.05)


async def tenants_there(endpoints: Endpoints, run_id: str) -> list[str]:
    async with await KubeClient.connect(endpoints.kubeconfig) as kube:
        found = await kube.list(NAMESPACES, selector=f"virtflow.io/run={run_id}")
    return [namespace["metadata"]["name"] for namespace in found]


@pytest.fixture
async def command(
    settings: Settings, cluster: LocalCluster, temporal: Client, tmp_path: Path
) -> AsyncIterator[tuple[Process, str]]:
    """`virtflow journey --tenants 2 --no-load` with its journeys on their way, and the run's id."""
    environment = os.environ | {"VIRTFLOW_CLUSTER": cluster.name, "VIRTFLOW_STATE_HOME": str(settings.state_home)}
    arguments = ["-m", "virtflow", "journey", "--tenants", "2", "--no-load"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=PIPE
    )
    try:
        assert process.stdout is not None
        # From then on the run has its folder, and the worker is the new one.
        while "Waiting for the worker" not in (line := (await process.stdout.readline()).decode()):
            assert line, "it ended early"
        (report,) = (tmp_path / "reports").iterdir()
        await until_one_is_on_its_way(temporal, ids_of(report.name))
        yield process, report.name
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def ids_of(run_id: str) -> list[str]:
    return list(journey_orders(run_id, tenants=2, users=None))


async def test_journeys_whose_command_is_killed_go_on_and_clean_up(
    command: tuple[Process, str], endpoints: Endpoints, temporal: Client
) -> None:
    process, run_id = command
    process.kill()
    with anyio.fail_after(120):
        handles = [temporal.get_workflow_handle_for(TenantJourney.run, each) for each in ids_of(run_id)]
        outcomes = [await handle.result() for handle in handles]
    assert [outcome.stopped_at for outcome in outcomes] == [None, None]
    assert await tenants_there(endpoints, run_id) == []


async def test_ctrl_c_cancels_the_journeys_and_waits_until_they_are_undone(
    command: tuple[Process, str], endpoints: Endpoints, temporal: Client
) -> None:
    process, run_id = command
    process.send_signal(signal.SIGINT)
    with anyio.fail_after(120):
        output, _ = await process.communicate()
    assert process.returncode == 130
    assert "Everything the journeys made is gone." in output.decode()
    assert await tenants_there(endpoints, run_id) == []
    ends = [(await temporal.get_workflow_handle(each).describe()).status for each in ids_of(run_id)]
    assert ends == [WorkflowExecutionStatus.CANCELED] * 2


async def test_journeys_survive_the_death_of_their_worker(
    cluster: LocalCluster, endpoints: Endpoints, temporal: Client, orders: dict[str, JourneyOrder]
) -> None:
    travelling = asyncio.create_task(travel(temporal, orders))
    await until_one_is_on_its_way(temporal, list(orders))
    psutil.Process(worker_of(cluster)).kill()
    with anyio.fail_after(180):
        journeys = await travelling
    assert [journey.failure for journey in journeys] == ["", "", ""]
    assert all(journey.outcome and len(journey.outcome.took) == 5 for journey in journeys)
    for order in orders.values():
        writes = Counter(
            (write.verb, write.resource)
            for write in map(write_of, endpoints.audit_log.read_bytes().splitlines())
            if write and write.namespace == order.tenant.namespace and not write.subresource and write.code < 300
        )
        assert writes["create", "virtualmachines"] == 1
        assert writes["create", "virtualmachineinstances"] == 1
        assert order.tenant.namespace not in await tenants_there(endpoints, order.tenant.labels["virtflow.io/run"])
