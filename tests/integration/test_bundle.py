"""The bundle of a scenario on a real cluster: one machine runs, another never will, and a secret is kept."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
import yaml
from temporalio.client import Client, WorkflowHandle, WorkflowHistory, WorkflowUpdateFailedError
from temporalio.worker import Replayer

from clusters.endpoints import Endpoints
from clusters.local.kubeconfig import kubeconfig_of_token
from virtflow.bundle import Failure, write, write_bundle
from virtflow.bundle.objects import REMOVED
from virtflow.kube import KubeClient
from virtflow.kube.inventory import list_kinds
from virtflow.kube.resources import EVENTS, VMIS
from virtflow.temporal import DATA_CONVERTER, TASK_QUEUE, connect
from virtflow.worker import WORKFLOWS
from workflows.access_models import SecretOrder
from workflows.labels import SCENARIO, labels_of
from workflows.models import ScenarioOrder, VirtualMachineOrder
from workflows.options import IDLE_TIMEOUT
from workflows.scenario import Scenario
from workflows.tenant_models import TenantOrder

pytestmark = pytest.mark.anyio

MANIFEST = (Path(__file__).parents[2] / "features" / "manifests" / "test-vm.yaml").read_text()
MOST, WITHIN = 10 * 1024 * 1024, 180
NO_ROOM = ", for which there was no room"

Handle = WorkflowHandle[Scenario, list[str]]


@pytest.fixture
async def temporal(endpoints: Endpoints) -> Client:
    return await connect(endpoints)


@pytest.fixture
async def kube(endpoints: Endpoints) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(endpoints.kubeconfig) as kube:
        yield kube


@pytest.fixture
async def failure(temporal: Client, kube: KubeClient) -> AsyncIterator[Failure]:
    """Of a scenario in which a virtual machine does not run, for want of a node."""
    run, since = f"it-{uuid.uuid4().hex[:8]}", datetime.now(UTC)
    labels = labels_of(run)
    mark = labels[SCENARIO]
    order = ScenarioOrder(run, "A feature", "A scenario", labels, IDLE_TIMEOUT)
    handle = await temporal.start_workflow(Scenario.run, order, id=run, task_queue=TASK_QUEUE)
    with anyio.fail_after(WITHIN):
        tenant = await handle.execute_update(Scenario.create_tenant, TenantOrder("tenant-a", f"a-{mark}", labels))
        await handle.execute_update(Scenario.create_secret, SecretOrder(tenant.namespace, "a-secret", labels))
        runs = VirtualMachineOrder(tenant, MANIFEST, labels, timedelta(minutes=1))
        await handle.execute_update(Scenario.create_virtual_machine, runs)
        never = replace(runs, manifest=nowhere(), running_within=timedelta(seconds=3))
        with pytest.raises(WorkflowUpdateFailedError):
            await handle.execute_update(Scenario.create_virtual_machine, never)
        await until(lambda: has_no_node(kube, tenant.namespace))
    yield Failure("A feature", "A scenario", "Then it runs", "It does not.", handle.id, labels, since)
    await handle.signal(Scenario.end)
    with anyio.fail_after(WITHIN):
        assert await handle.result() == []


def nowhere() -> str:
    body = yaml.safe_load(MANIFEST)
    body["metadata"]["name"] = "nowhere"
    body["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "nowhere"}
    return yaml.safe_dump(body)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await holds():
            return
        await anyio.sleep(0.2)


async def has_no_node(kube: KubeClient, namespace: str) -> bool:
    """Whether the machine that gets none is known for it."""
    reasons = [event.get("reason") for event in await kube.list(EVENTS, namespace)]
    instances = {vmi["metadata"]["name"]: vmi.get("status", {}) for vmi in await kube.list(VMIS, namespace)}
    return "FailedScheduling" in reasons and instances.get("nowhere", {}).get("phase") == "Scheduling"


async def every_server_answers(kube: KubeClient) -> bool:
    """Aggregated ones, too: else it says what it does not know."""
    _, silent = await list_kinds(kube)
    return not silent


def files_in(folder: Path) -> dict[str, Path]:
    return {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}


async def test_it_has_what_there_was(
    failure: Failure,
    endpoints: Endpoints,
    temporal: Client,
    kube: KubeClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However slow the machine is, and whichever server other tests have just killed.
    monkeypatch.setattr(write, "WITHIN", timedelta(seconds=WITHIN))
    with anyio.fail_after(WITHIN):
        await until(lambda: every_server_answers(kube))
    index = await write_bundle(tmp_path, failure, endpoints, temporal)
    text = index.read_text()
    files = files_in(tmp_path)
    assert [line for line in text.partition("## Left out")[2].splitlines() if line and NO_ROOM not in line] == []
    assert all(f"]({name})" in text for name in files.keys() - {"index.md"})
    assert sum(file.stat().st_size for file in files.values()) < MOST

    namespace = f"a-{failure.mark}"
    documents = list(yaml.safe_load_all(files[f"objects/{namespace}.yaml"].read_text()))
    by_kind = {(each["kind"], each["metadata"]["name"]): each for each in documents}
    assert by_kind["Namespace", namespace]["metadata"]["labels"].items() >= failure.labels.items()
    assert by_kind["VirtualMachine", "test-vm"]["status"]["printableStatus"] == "Running"
    assert by_kind["VirtualMachineInstance", "nowhere"]["status"]["phase"] == "Scheduling"
    assert by_kind["Secret", "a-secret"]["data"] == {"password": REMOVED}
    assert {"Pod", "Role", "RoleBinding", "ServiceAccount"} <= {kind for kind, _ in by_kind}
    assert {each["metadata"].get("namespace", namespace) for each in documents} == {namespace}

    assert "FailedScheduling" in files["events.txt"].read_text()
    sequence = files["sequence.txt"].read_text()
    well, never = sorted(sequence.strip().split("\n\n"), key=lambda each: "nowhere" in each)
    assert well.startswith(f"{namespace}/test-vm, created by tenant-a-user: 201")
    assert "missing" not in well
    assert "11 VM Running and ready, by kubevirt-controller" in well
    assert "missing   8 bind Pod, by kube-scheduler" in never
    assert f"create virtualmachines {namespace}/test-vm" in files["writes.txt"].read_text()
    assert f"VirtualMachine {namespace}/test-vm: Started" in files["logs/virt-controller.log"].read_text()

    for name in ("scenario", "create-1", "create-2"):
        history = WorkflowHistory.from_json(name, files[f"histories/{name}.json"].read_text())
        assert len(history.events) > 10
    replayer = Replayer(workflows=WORKFLOWS, data_converter=DATA_CONVERTER)
    await replayer.replay_workflow(
        WorkflowHistory.from_json(failure.workflow_id, files["histories/scenario.json"].read_text())
    )


async def test_without_the_kube_apiserver_the_rest_is_there(
    failure: Failure, endpoints: Endpoints, temporal: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "WITHIN", timedelta(seconds=WITHIN))
    kubeconfig = tmp_path / "admin.yaml"
    kubeconfig_of_token(kubeconfig, "https://127.0.0.1:9", endpoints.ca_cert, "a-token")
    index = await write_bundle(tmp_path / "bundle", failure, replace(endpoints, kubeconfig=kubeconfig), temporal)
    text = index.read_text()
    assert "- objects: ClientConnectorError" in text
    assert "- events: ClientConnectorError" in text
    assert "11 VM Running and ready" in (index.parent / "sequence.txt").read_text()
    assert (index.parent / "histories" / "scenario.json").exists()
