"""Faults that a scenario makes on a real cluster end, whatever is killed in the middle of them."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import anyio
import psutil
import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError, WorkflowUpdateStage

from activities.faults import is_well, mark_of, ready_of
from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from virtflow.kube import Informer, KubeClient, Object
from virtflow.kube.resources import NODES
from virtflow.temporal import TASK_QUEUE, connect
from workflows.failures import words_of
from workflows.fault_models import NodeFault, Outage
from workflows.models import ScenarioOrder
from workflows.scenario import Scenario

pytestmark = pytest.mark.anyio

PATIENCE = 120
NODE = "node-2"

Handle = WorkflowHandle[Scenario, list[str]]


@pytest.fixture
async def temporal(endpoints: Endpoints) -> Client:
    return await connect(endpoints)


@pytest.fixture
async def nodes(kubeconfig: Path) -> AsyncIterator[Informer]:
    async with await KubeClient.connect(kubeconfig) as kube:
        informer = Informer(kube, NODES)
        async with informer.running():
            yield informer


async def started(temporal: Client) -> Handle:
    order = ScenarioOrder("faults", "a feature", "a scenario", {}, timedelta(minutes=10))
    return await temporal.start_workflow(
        Scenario.run, order, id=f"faults/{uuid.uuid4().hex[:8]}", task_queue=TASK_QUEUE
    )


async def ended(handle: Handle) -> list[str]:
    await handle.signal(Scenario.end)
    with anyio.fail_after(PATIENCE):
        return await handle.result()


def kill(cluster: LocalCluster, name: str) -> None:
    (pid,) = (each.pid for each in cluster.status() if each.name == name)
    psutil.Process(pid).kill()


def state_of(cluster: LocalCluster, name: str) -> str:
    return next(each.state for each in cluster.status() if each.name == name)


def node_of(nodes: Informer) -> Object:
    node = nodes.get("", NODE)
    assert node is not None
    return node


async def test_the_apiserver_comes_back_though_the_worker_died_while_it_was_gone(
    cluster: LocalCluster, temporal: Client, nodes: Informer
) -> None:
    """The next worker cannot list anything before: what brings it back does without."""
    outage = Outage("kube-apiserver", timedelta(seconds=20))
    handle = await started(temporal)
    await handle.execute_update(Scenario.take_down, outage)
    assert state_of(cluster, "kube-apiserver") == "STOPPED"
    kill(cluster, "worker")
    with anyio.fail_after(PATIENCE):
        over = await handle.execute_update(Scenario.await_back, outage)
    assert over.back_at >= over.gone_at
    assert state_of(cluster, "kube-apiserver") == "RUNNING"
    await nodes.catch_up()
    assert await ended(handle) == []


async def test_a_cancelled_scenario_brings_back_what_it_took_down(
    cluster: LocalCluster, temporal: Client, nodes: Informer
) -> None:
    handle = await started(temporal)
    await handle.execute_update(Scenario.take_down, Outage("kube-scheduler", timedelta(minutes=10)))
    assert state_of(cluster, "kube-scheduler") == "STOPPED"
    await handle.cancel()
    with anyio.fail_after(PATIENCE):
        assert await handle.result() == []
    assert state_of(cluster, "kube-scheduler") == "RUNNING"


async def test_a_node_is_mended_though_the_worker_died_and_nobody_mends_another_s(
    cluster: LocalCluster, temporal: Client, nodes: Informer
) -> None:
    first, second = await started(temporal), await started(temporal)
    await first.execute_update(Scenario.fail_node, NodeFault(NODE, "the first"))
    await nodes.catch_up()
    assert (mark_of(node_of(nodes)), ready_of(node_of(nodes))) == ("the first", "False")
    waiting = await second.start_update(
        Scenario.fail_node, NodeFault(NODE, "the second"), wait_for_stage=WorkflowUpdateStage.ACCEPTED
    )
    kill(cluster, "worker")
    assert await ended(first) == []
    with anyio.fail_after(PATIENCE):
        await waiting.result()
    await nodes.catch_up()
    assert (mark_of(node_of(nodes)), ready_of(node_of(nodes))) == ("the second", "False")
    await first_again(temporal)
    await nodes.catch_up()
    assert mark_of(node_of(nodes)) == "the second"
    assert await ended(second) == []
    with anyio.fail_after(PATIENCE):
        await nodes.wait_for("", NODE, lambda node: node is not None and is_well(node))
    assert mark_of(node_of(nodes)) == ""


async def first_again(temporal: Client) -> None:
    """The compensation of the first once more, as a retry might do it."""
    handle = await started(temporal)
    await handle.execute_update(Scenario.mend_node, NodeFault(NODE, "the first"))
    assert await ended(handle) == []


async def test_what_is_not_there_cannot_fail(temporal: Client, cluster: LocalCluster) -> None:
    handle = await started(temporal)
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await handle.execute_update(Scenario.fail_node, NodeFault("node-99", "somebody"))
    assert words_of(failed.value).startswith("There is no node node-99. There are: node-1, ")
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await handle.execute_update(Scenario.take_down, Outage("kubelet", timedelta(seconds=1)))
    assert words_of(failed.value).startswith("No kubelet is kept by this cluster's own supervisor")
    assert await ended(handle) == []
