"""On a real cluster: all that a scenario makes bears its labels, and it goes, however the scenario ends.

What cleanup says and in which order it deletes is in tests/unit/test_leftovers.py; that a killed worker undoes is in
test_journey.py.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateStage
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import tenants
from activities.gateway import REVOCABLE
from activities.tokens import Tokens
from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from virtflow import leftovers
from virtflow.exit_codes import ExitCode
from virtflow.kube import Informer, KubeClient
from virtflow.kube.inventory import take_inventory
from virtflow.kube.resources import NAMESPACES, PODS, RESOURCE_QUOTAS, SECRETS, SERVICE_ACCOUNTS, VMIS, VMS
from virtflow.leftovers import find_leftovers, left_by, sweep
from virtflow.runs import Run
from virtflow.settings import Settings
from virtflow.temporal import TASK_QUEUE, connect
from workflows.access_models import SecretOrder, Withdrawal, WithdrawnTokenOrder
from workflows.labels import RUN, SCENARIO, labels_of, run_of
from workflows.models import (
    GatewayRequest,
    ReplicaSetOrder,
    ScenarioOrder,
    Verb,
    VirtualMachineOrder,
)
from workflows.options import IDLE_TIMEOUT
from workflows.scenario import Scenario
from workflows.tenant_models import OPERATOR, Tenant, TenantOrder, TenantSpec

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "features" / "manifests"
WITHIN = timedelta(minutes=5)
HARNESS = ("virtflow-admin", "system:serviceaccount:virtflow-system:iam-gateway")
SPEC = TenantSpec(
    ["alice", "bob"], OPERATOR, {"pods": "20"}, [{"type": "Container", "default": {"cpu": "2", "memory": "2Gi"}}]
)

Handle = WorkflowHandle[Scenario, list[str]]


@pytest.fixture
async def temporal(endpoints: Endpoints) -> Client:
    return await connect(endpoints)


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig) as kube:
        # An API whose server another test has killed: until it is back, nobody says that nothing is left.
        with anyio.fail_after(WITHIN.total_seconds()):
            while (await take_inventory(kube)).unseen:  # noqa: ASYNC110
                await anyio.sleep(0.5)
        yield kube


class Session:
    """A scenario with a tenant."""

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self.run = f"it-{uuid.uuid4().hex[:8]}"
        self.id = f"{self.run}/feature/scenario"
        self.labels = labels_of(self.id)
        self.order = TenantOrder("tenant-a", f"tenant-a-{self.labels[SCENARIO]}", self.labels, SPEC)
        self.handle: Handle

    async def begin(self, idle_timeout: timedelta = IDLE_TIMEOUT) -> Tenant:
        order = ScenarioOrder(self.run, "feature", "scenario", self.labels, idle_timeout)
        self.handle = await self._temporal.start_workflow(Scenario.run, order, id=self.id, task_queue=TASK_QUEUE)
        return await self.handle.execute_update(Scenario.create_tenant, self.order)

    def machine(self, tenant: Tenant, manifest: str = "test-vm.yaml") -> VirtualMachineOrder:
        return VirtualMachineOrder(tenant, (MANIFESTS / manifest).read_text(), self.labels, WITHIN)


@pytest.fixture
async def session(temporal: Client, kube: KubeClient) -> AsyncIterator[Session]:
    session = Session(temporal)
    yield session
    await kube.delete(NAMESPACES, session.order.namespace)


def made_by_the_harness(audit_log: Path, namespace: str) -> Iterator[tuple[str, str]]:
    """Plural and name of what its own identities, or tenants through the gateway, created in a namespace."""
    with audit_log.open(encoding="utf-8") as lines:
        for line in lines:
            if namespace not in line:
                continue
            event: Any = json.loads(line)
            ref = event.get("objectRef", {})
            is_new = event.get("responseStatus", {}).get("code") == 201 and not ref.get("subresource")
            if is_new and ref.get("namespace") == namespace and event["user"]["username"] in HARNESS:
                name = ref.get("name") or event["responseObject"]["metadata"]["name"]
                yield ref["resource"], name


async def test_all_that_a_scenario_makes_bears_its_labels_and_goes_when_it_is_cancelled(
    session: Session, kube: KubeClient, endpoints: Endpoints
) -> None:
    tenant = await session.begin()
    handle, labels, namespace = session.handle, session.labels, tenant.namespace
    replica_set, autoscaler = ((MANIFESTS / name).read_text() for name in ("test-vmirs.yaml", "test-hpa.yaml"))
    with anyio.fail_after(WITHIN.total_seconds()):
        await handle.execute_update(Scenario.create_virtual_machine, session.machine(tenant))
        request = GatewayRequest(tenant, Verb.CREATE, manifest=halted_without_labels(), labels=labels)
        assert (await handle.execute_update(Scenario.request_gateway, request)).code == 201
        await handle.execute_update(Scenario.create_secret, SecretOrder(namespace, "password", labels))
        withdrawn = WithdrawnTokenOrder(tenant, Withdrawal.SECRET, timedelta(0), labels)
        await handle.execute_update(Scenario.withdraw_token, withdrawn)
        order = ReplicaSetOrder(namespace, replica_set, autoscaler, labels, WITHIN)
        await handle.execute_update(Scenario.create_replica_set, order)

    made = set(made_by_the_harness(endpoints.audit_log, namespace))
    assert {plural for plural, _ in made} == {
        "horizontalpodautoscalers",
        "limitranges",
        "namespaces",
        "resourcequotas",
        "rolebindings",
        "roles",
        "secrets",
        "serviceaccounts",
        "virtualmachineinstancereplicasets",
        "virtualmachines",
    }
    [itself] = [found for found in (await take_inventory(kube)).objects if found.name == namespace]
    there = [itself, *(await take_inventory(kube, namespace=namespace)).objects]
    # All but the one that its step deletes again.
    assert made - {(found.resource.plural, found.name) for found in there} == {("secrets", REVOCABLE)}
    unlabelled = [
        str(found)
        for found in there
        if (found.resource.plural, found.name) in made and not labels.items() <= found.labels.items()
    ]
    assert unlabelled == []
    # Of what others made for them, KubeVirt hands the labels on.
    for resource, count in ((VMIS, 2), (PODS, 2)):
        of_kind = [found for found in there if found.resource == resource]
        assert [labels.items() <= found.labels.items() for found in of_kind] == [True] * count

    await handle.cancel()
    with anyio.fail_after(WITHIN.total_seconds()):
        assert await handle.result() == []
    assert await left_by(endpoints.kubeconfig, session.run) == []


def halted_without_labels() -> str:
    """With `labels:` and nothing behind it, as people write it."""
    text = (MANIFESTS / "halted-vm.yaml").read_text()
    return text.replace("metadata:\n", "metadata:\n  labels:\n", 1)


async def test_a_step_that_is_cancelled_in_the_middle_leaves_nothing(session: Session, endpoints: Endpoints) -> None:
    tenant = await session.begin()
    await session.handle.start_update(
        Scenario.create_virtual_machine, session.machine(tenant), wait_for_stage=WorkflowUpdateStage.ACCEPTED
    )
    await session.handle.cancel()
    with anyio.fail_after(WITHIN.total_seconds()):
        assert await session.handle.result() == []
    assert await left_by(endpoints.kubeconfig, session.run) == []


async def test_a_scenario_nobody_speaks_to_leaves_nothing(session: Session, endpoints: Endpoints) -> None:
    await session.begin(idle_timeout=timedelta(seconds=1))
    with anyio.fail_after(WITHIN.total_seconds()):
        assert await session.handle.result() == []
    assert await left_by(endpoints.kubeconfig, session.run) == []


class Programs:
    """`virtflow` as a user has it, on the cluster of the tests."""

    def __init__(self, settings: Settings, cluster: LocalCluster, folder: Path) -> None:
        self.folder = folder
        own = {key: value for key, value in os.environ.items() if not key.startswith("VIRTFLOW_")}
        self._environment = own | {
            "VIRTFLOW_CLUSTER": cluster.name,
            "VIRTFLOW_STATE_HOME": str(settings.state_home),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }

    async def start(self, *arguments: str) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "virtflow", *arguments, cwd=self.folder, env=self._environment, stdout=PIPE
        )

    async def run(self, *arguments: str) -> tuple[int | None, str]:
        process = await self.start(*arguments)
        with anyio.fail_after(WITHIN.total_seconds()):
            output, _ = await process.communicate()
        return process.returncode, output.decode()


@pytest.fixture
def virtflow(settings: Settings, cluster: LocalCluster, tmp_path: Path) -> Programs:
    return Programs(settings, cluster, tmp_path)


async def open_workflows(temporal: Client, run: str) -> list[str]:
    executions = temporal.list_workflows("ExecutionStatus = 'Running'")
    return [execution.id async for execution in executions if run_of(execution.id) == run]


async def test_what_a_terminated_scenario_left_is_found_and_removed_when_its_session_is_over(
    session: Session, virtflow: Programs, temporal: Client, kube: KubeClient
) -> None:
    tenant = await session.begin()
    await session.handle.execute_update(Scenario.create_virtual_machine, session.machine(tenant))
    namespace = tenant.namespace
    with anyio.fail_after(WITHIN.total_seconds()):
        # Temporal's list comes late: the session may not be in it yet, and its child, which has ended, still be.
        while await open_workflows(temporal, session.run) != [session.id]:  # noqa: ASYNC110
            await anyio.sleep(0.2)

    # Without --delete, which would take what other tests may have left.
    code, said = await virtflow.run("gc")
    assert code == 0
    assert f"{session.run}, in use (open workflows: 1)" in said
    [spared] = [line for line in said.splitlines() if line.startswith("Spared, because in use or maybe so:")]
    assert session.run in spared

    await session.handle.terminate("a test")
    code, said = await virtflow.run("gc", "--run", session.run)
    assert code == 0
    table = [line.split() for line in said.splitlines()]
    assert [row[2:] for row in table if "VirtualMachine" in row] == [
        ["VirtualMachine", f"{namespace}/test-vm", "kubevirt.io/virtualMachineControllerFinalize"]
    ]
    assert {"Namespace", "Pod", "Role", "ServiceAccount", "VirtualMachineInstance"} <= {
        word for row in table for word in row
    }
    assert (await kube.get(VMS, "test-vm", namespace))["status"]["printableStatus"] == "Running"

    code, said = await virtflow.run("gc", "--run", session.run, "--delete")
    assert code == 0, said
    assert (await find_leftovers(kube, f"{RUN}={session.run}")).objects == []


async def test_gc_works_with_any_kubeconfig_and_by_name_where_nobody_knows_who_is_in_use(
    session: Session, virtflow: Programs, kube: KubeClient, endpoints: Endpoints
) -> None:
    labels = session.labels
    await kube.create(NAMESPACES, {"metadata": {"name": session.order.namespace, "labels": labels}})
    of_another_cluster = ("gc", "--kubeconfig", str(endpoints.kubeconfig), "--delete")
    code, said = await virtflow.run(*of_another_cluster)
    assert code == 0
    assert "Whether a run is in use is not known" in said
    assert session.run in said
    assert [str(found) for found in (await find_leftovers(kube, f"{RUN}={session.run}")).objects] == [
        f"Namespace {session.order.namespace}"
    ]
    code, said = await virtflow.run(*of_another_cluster, "--run", session.run)
    assert code == 0
    assert (await find_leftovers(kube, f"{RUN}={session.run}")).objects == []


async def test_what_a_finalizer_holds_is_named(
    session: Session, kube: KubeClient, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenants, "GONE_LIMIT", timedelta(seconds=1))
    monkeypatch.setattr(leftovers, "STALLED_AFTER", timedelta(seconds=1))
    namespace, selector = session.order.namespace, f"{RUN}={session.run}"
    await kube.create(NAMESPACES, {"metadata": {"name": namespace, "labels": session.labels}})
    metadata = {"name": "held", "finalizers": ["example.com/hold"]}
    await kube.create(SECRETS, {"metadata": metadata}, namespace)
    words = f"Secret {namespace}/held is held by the finalizer example.com/hold"
    try:
        async with contextlib.AsyncExitStack() as stack:
            informers = [Informer(kube, each) for each in (NAMESPACES, SERVICE_ACCOUNTS, RESOURCE_QUOTAS)]
            for informer in informers:
                await stack.enter_async_context(informer.running())
            made = tenants.Tenants(kube, Tokens(kube), *informers)
            with pytest.raises(ApplicationError, match=f"{namespace} is not gone 1 s after.*{words}"):
                await ActivityEnvironment().run(made.delete_tenant, session.order)
        [left] = await sweep(endpoints.kubeconfig, selector)
        assert left.startswith(f"Namespace {namespace} is there: ")
        assert words in left
    finally:
        await kube.patch(SECRETS, "held", {"metadata": {"finalizers": []}}, namespace)
    monkeypatch.undo()
    with anyio.fail_after(WITHIN.total_seconds()):
        assert await sweep(endpoints.kubeconfig, selector) == []


async def its_session(virtflow: Programs, temporal: Client, process: Process) -> WorkflowHandle[Any, Any]:
    """The scenario of a run of one, when its tenant is there and its next step under way."""
    assert process.stdout is not None
    while "Given the tenant" not in (line := (await process.stdout.readline()).decode()):
        assert line, "it ended early"
    (report,) = (virtflow.folder / "reports").iterdir()
    (session,) = Run.load(report).unfinished
    return temporal.get_workflow_handle(session)


@contextlib.contextmanager
def suspended(cluster: LocalCluster, component: str) -> Iterator[None]:
    pid = next(each.pid for each in cluster.status() if each.name == component)
    assert pid is not None
    program = psutil.Process(pid)
    program.suspend()
    try:
        yield
    finally:
        program.resume()


async def cancel(handle: WorkflowHandle[Any, Any], _: Process) -> None:
    await handle.cancel()


async def terminate(handle: WorkflowHandle[Any, Any], _: Process) -> None:
    await handle.terminate("a test")


async def interrupt(_: WorkflowHandle[Any, Any], process: Process) -> None:
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize("end", [cancel, terminate, interrupt])
async def test_a_run_leaves_nothing_however_its_scenario_is_ended(
    cluster: LocalCluster,
    virtflow: Programs,
    temporal: Client,
    endpoints: Endpoints,
    end: Callable[[WorkflowHandle[Any, Any], Process], Awaitable[None]],
) -> None:
    process = await virtflow.start("e2e", "--feature", "A virtual machine that a tenant creates runs")
    try:
        with anyio.fail_after(WITHIN.total_seconds()):
            # Without it no machine runs, and the scenario cannot come to its end before it is ended.
            with suspended(cluster, "virt-controller"):
                handle = await its_session(virtflow, temporal, process)
                await end(handle, process)
            output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    said = output.decode()
    assert process.returncode == ExitCode.INTERRUPTED, said
    assert "left something behind" not in said
    assert await left_by(endpoints.kubeconfig, run_of(handle.id)) == []
    assert (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING
