"""subresources.kubevirt.io through a real kube-apiserver: what virtctl calls, by users with their own tokens.

What virt-api writes is read from the audit log, so that it does not matter how fast virt-controller acts on it. Not
here: each run strategy with each instance (tests/unit/test_subresource_lifecycle.py).
"""

import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import psutil
import pytest
import yaml

from clusters.kubevirt.install import SUBRESOURCE_VERSIONS, SUBRESOURCES
from clusters.local import LocalCluster
from clusters.local.kubeconfig import kubeconfig_of_token
from tests.integration.support import PATIENCE, Tenant, make_template, tenant_on
from virtflow.kube import KubeClient, Object, Response
from virtflow.kube.resources import API_SERVICES, NAMESPACES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, VMIS, VMS

pytestmark = pytest.mark.anyio

POLL = 0.1
TOKEN_LIFETIME = timedelta(minutes=30)
VIRT_API = "system:serviceaccount:kubevirt:kubevirt-apiserver"
HANDLER = "system:serviceaccount:kubevirt:kubevirt-handler"
MACHINES, INSTANCES = "virtualmachines", "virtualmachineinstances"
RULES: dict[str, list[Object]] = {
    "operator": [
        {
            "apiGroups": [SUBRESOURCES],
            "resources": [
                *(f"{MACHINES}/{action}" for action in ("start", "stop", "restart")),
                *(f"{INSTANCES}/{action}" for action in ("pause", "unpause")),
            ],
            "verbs": ["update"],
        }
    ],
    # May change a machine, but not through this API.
    "owner": [{"apiGroups": ["kubevirt.io"], "resources": [MACHINES], "verbs": ["get", "update", "patch"]}],
}
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass(frozen=True)
class User:
    """A service account of the tenant's namespace, and its client."""

    namespace: str
    name: str
    kubeconfig: Path
    kube: KubeClient

    @property
    def full_name(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    async def put(self, resource: str, machine: str, action: str, body: Object | None = None) -> Response:
        return await self.kube.send("PUT", path_of(self.namespace, resource, machine, action), body=body or {})


def path_of(namespace: str, resource: str, machine: str, action: str) -> str:
    return f"/apis/{SUBRESOURCES}/v1/namespaces/{namespace}/{resource}/{machine}/{action}"


@pytest.fixture
async def tenant(kubeconfig: Path) -> AsyncIterator[Tenant]:
    async with tenant_on(kubeconfig) as tenant:
        yield tenant
        for machine in tenant.all(VMS):
            await tenant.kube.delete(VMS, machine["metadata"]["name"], tenant.namespace)
        await tenant.until(lambda: not tenant.all(VMIS) and not tenant.all(VMS))


@pytest.fixture
async def users(tenant: Tenant, kubeconfig: Path, ca_cert: Path, tmp_path: Path) -> AsyncIterator[dict[str, User]]:
    """A user for each of RULES, each with these rights in the tenant's namespace only."""
    server = yaml.safe_load(await anyio.Path(kubeconfig).read_text())["clusters"][0]["cluster"]["server"]
    kube, namespace = tenant.kube, tenant.namespace
    async with AsyncExitStack() as stack:
        found = {}
        for name, rules in RULES.items():
            subject = {"kind": SERVICE_ACCOUNTS.kind, "namespace": namespace, "name": name}
            role = {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": name}
            await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": name}}, namespace)
            await kube.create(ROLES, {"metadata": {"name": name}, "rules": rules}, namespace)
            binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
            await kube.create(ROLE_BINDINGS, binding, namespace)
            file = tmp_path / f"{name}.yaml"
            kubeconfig_of_token(file, server, ca_cert, await kube.create_token(namespace, name, TOKEN_LIFETIME))
            client = await stack.enter_async_context(await KubeClient.connect(file, agent="virtctl"))
            found[name] = User(namespace, name, file, client)
        yield found


@pytest.fixture
def operator(users: dict[str, User]) -> User:
    return users["operator"]


async def create_vm(tenant: Tenant, name: str, strategy: str) -> None:
    spec = {"runStrategy": strategy, "template": make_template(name)}
    await tenant.kube.create(VMS, {"metadata": {"name": name}, "spec": spec}, tenant.namespace)


def phase(tenant: Tenant, name: str) -> str | None:
    instance = tenant.get(VMIS, name)
    return None if instance is None else instance.get("status", {}).get("phase")


def has_condition(tenant: Tenant, name: str, kind: str) -> bool:
    instance = tenant.get(VMIS, name) or {}
    return any(each["type"] == kind for each in instance.get("status", {}).get("conditions", []))


RESTARTS = 10
"""virt-controller, who is told first, may end the launcher before virt-api can; not every time."""


async def writes(audit_log: Path, namespace: str, user: str, count: int) -> list[Object]:
    """The user's writes in the namespace, in order of arrival, once there are `count`."""
    with anyio.fail_after(PATIENCE.total_seconds()):
        while True:
            lines = (await anyio.Path(audit_log).read_text()).splitlines(keepends=True)
            events = [json.loads(line) for line in lines if namespace in line and line.endswith("\n")]
            found = [
                event
                for event in events
                if event["user"]["username"] == user
                and event["objectRef"].get("namespace") == namespace
                and event["verb"] in ("update", "patch", "delete", "create")
            ]
            if len(found) >= count:
                return sorted(found, key=lambda event: str(event["requestReceivedTimestamp"]))
            await anyio.sleep(POLL)


def what(event: Object) -> tuple[str, str, str, int]:
    about = event["objectRef"]
    full_name = "/".join(about[each] for each in ("resource", "subresource") if each in about)
    return event["verb"], about["apiGroup"], full_name, event["responseStatus"]["code"]


async def test_a_halted_machine_is_started_paused_stopped_and_each_did_it_in_their_own_name(
    tenant: Tenant, operator: User, audit_log: Path
) -> None:
    await create_vm(tenant, "vm", "Halted")
    answers = [await operator.put(MACHINES, "vm", "start")]
    await tenant.until(lambda: phase(tenant, "vm") == "Running")
    answers.append(await operator.put(INSTANCES, "vm", "pause"))
    await tenant.until(lambda: has_condition(tenant, "vm", "Paused"))
    again = await operator.put(INSTANCES, "vm", "pause")
    answers.append(await operator.put(INSTANCES, "vm", "unpause"))
    await tenant.until(lambda: not has_condition(tenant, "vm", "Paused"))
    answers.append(await operator.put(MACHINES, "vm", "stop"))
    await tenant.until(lambda: phase(tenant, "vm") is None)

    assert [(answer.code, answer.body) for answer in answers] == [(202, {}), (200, {}), (200, {}), (202, {})]
    assert (again.code, again.body["reason"]) == (409, "Conflict")
    refusal = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "vm": VMI is already paused'
    assert again.body["message"] == refusal

    asked = await writes(audit_log, tenant.namespace, operator.full_name, 5)
    assert [what(event) for event in asked] == [
        ("update", SUBRESOURCES, f"{MACHINES}/start", 202),
        ("update", SUBRESOURCES, f"{INSTANCES}/pause", 200),
        ("update", SUBRESOURCES, f"{INSTANCES}/pause", 409),
        ("update", SUBRESOURCES, f"{INSTANCES}/unpause", 200),
        ("update", SUBRESOURCES, f"{MACHINES}/stop", 202),
    ]
    done = await writes(audit_log, tenant.namespace, VIRT_API, 2)
    assert [(what(event), event["userAgent"]) for event in done] == [
        (("patch", "kubevirt.io", MACHINES, 200), "virt-api")
    ] * 2
    assert [event["requestObject"][1]["value"] for event in done] == ["Always", "Halted"]
    pauses = [
        [each["type"] for each in event["requestObject"]["status"]["conditions"]]
        for event in await writes(audit_log, tenant.namespace, HANDLER, 4)
    ]
    assert [types for types in pauses if "Paused" in types] == [["Ready", "Paused"]]


async def test_a_manual_machine_gets_requests_for_the_controller(
    tenant: Tenant, operator: User, audit_log: Path
) -> None:
    await create_vm(tenant, "vm", "Manual")
    await tenant.until(lambda: bool((tenant.get(VMS, "vm") or {}).get("status")))
    dry = await operator.put(MACHINES, "vm", "start", {"dryRun": ["All"]})
    started = await operator.put(MACHINES, "vm", "start", {"paused": True})
    stopped = await operator.put(MACHINES, "gone", "stop")
    assert (dry.code, started.code, stopped.code) == (202, 202, 404)
    assert stopped.body["message"] == 'virtualmachine.kubevirt.io "gone" not found'
    done = await writes(audit_log, tenant.namespace, VIRT_API, 2)
    assert [what(event) for event in done] == [("patch", "kubevirt.io", f"{MACHINES}/status", 200)] * 2
    assert ["dryRun=All" in event["requestURI"] for event in done] == [True, False]
    path = "/status/stateChangeRequests"
    assert done[1]["requestObject"] == [
        {"op": "test", "path": path, "value": None},
        {"op": "add", "path": path, "value": [{"action": "Start", "data": {"paused": "true"}}]},
    ]
    stored = done[1]["responseObject"]["status"]["stateChangeRequests"]
    assert stored == [{"action": "Start", "data": {"paused": "true"}}]


async def test_a_running_machine_is_restarted_by_a_stop_of_this_instance_and_a_start(
    tenant: Tenant, operator: User, audit_log: Path
) -> None:
    await create_vm(tenant, "vm", "Always")
    await tenant.until(lambda: phase(tenant, "vm") == "Running")
    first = tenant.get(VMIS, "vm")
    assert first is not None
    forced = {"gracePeriodSeconds": 0}
    refused = await operator.put(MACHINES, "vm", "restart", {"gracePeriodSeconds": 5})
    assert (refused.code, refused.body["reason"]) == (400, "BadRequest")
    started = await operator.put(MACHINES, "vm", "start")
    assert started.body["message"].endswith('"vm": VM is already running')
    uid, deletes = first["metadata"]["uid"], list[Object]()
    for _ in range(RESTARTS):
        before = _uid(tenant, "vm")
        assert (await operator.put(MACHINES, "vm", "restart", forced)).code == 202
        await tenant.until(lambda: _uid(tenant, "vm") not in (None, before) and phase(tenant, "vm") == "Running")  # noqa: B023
        change, *others = await writes(audit_log, tenant.namespace, VIRT_API, 1)
        if deletes := [each for each in others if each["verb"] == "delete"]:
            break
    assert what(change) == ("patch", "kubevirt.io", f"{MACHINES}/status", 200)
    assert change["requestObject"][-1]["value"] == [{"action": "Stop", "uid": uid}, {"action": "Start"}]
    assert [each["objectRef"]["resource"] for each in deletes] == ["pods"]
    assert deletes[0]["requestObject"]["gracePeriodSeconds"] == 1


def _uid(tenant: Tenant, name: str) -> str | None:
    instance = tenant.get(VMIS, name)
    return None if instance is None else instance["metadata"]["uid"]


async def test_a_grace_period_reaches_an_instance_that_had_none(
    tenant: Tenant, operator: User, audit_log: Path
) -> None:
    await create_vm(tenant, "vm", "Always")
    await tenant.until(lambda: phase(tenant, "vm") == "Running")
    assert (await operator.put(MACHINES, "vm", "stop", {"gracePeriod": 7})).code == 202
    grace, stop = await writes(audit_log, tenant.namespace, VIRT_API, 2)
    assert what(grace) == ("patch", "kubevirt.io", INSTANCES, 200)
    assert grace["responseObject"]["spec"]["terminationGracePeriodSeconds"] == 7
    assert stop["responseObject"]["spec"]["runStrategy"] == "Halted"


async def test_rights_are_those_of_the_subresource_in_its_namespace(
    tenant: Tenant, users: dict[str, User], kubectl: Path
) -> None:
    await create_vm(tenant, "vm", "Halted")
    owner, operator = users["owner"], users["operator"]
    answer = await owner.put(MACHINES, "vm", "start")
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert answer.body["message"] == (
        f'virtualmachines.{SUBRESOURCES} "vm" is forbidden: User "{owner.full_name}" cannot update resource '
        f'"virtualmachines/start" in API group "{SUBRESOURCES}" in the namespace "{tenant.namespace}"'
    )
    elsewhere = path_of("default", MACHINES, "vm", "start")
    assert (await operator.kube.send("PUT", elsewhere, body={})).code == 403
    machine = tenant.get(VMS, "vm")
    assert machine is not None
    assert machine["spec"]["runStrategy"] == "Halted"
    # kubectl, with the operator's own token.
    path = path_of(tenant.namespace, MACHINES, "vm", "restart")
    command = [str(kubectl), "--kubeconfig", str(operator.kubeconfig), "replace", "--raw", path, "-f", "-"]
    done = await anyio.run_process(command, input=b"{}", check=False)
    assert done.returncode == 1
    assert done.stderr.decode().strip() == (
        'Error from server (Conflict): Operation cannot be fulfilled on virtualmachine.kubevirt.io "vm": '
        "RunStategy Halted does not support manual restart requests"
    )


async def test_nobody_comes_past_the_kube_apiserver(tenant: Tenant, cluster: LocalCluster, ca_cert: Path) -> None:
    await create_vm(tenant, "vm", "Halted")
    ports, pki = json.loads((cluster.folder / "ports.json").read_text()), cluster.folder / "pki"
    path = path_of(tenant.namespace, MACHINES, "vm", "start")
    forged = {"X-Remote-User": "virtflow-admin", "X-Remote-Group": "system:masters"}
    tls = ssl.create_default_context(cafile=ca_cert)
    async with httpx.AsyncClient(verify=tls, headers=forged) as http:
        answer = await http.put(f"https://127.0.0.1:{ports['virt_api']}{path}")
    assert (answer.status_code, answer.text) == (401, "request is not authenticated")
    tls.load_cert_chain(pki / "gateway.crt", pki / "gateway.key")
    async with httpx.AsyncClient(verify=tls, headers=forged) as http:
        with pytest.raises(httpx.TransportError):
            await http.put(f"https://127.0.0.1:{ports['virt_api']}{path}")
    assert (tenant.get(VMS, "vm") or {})["spec"]["runStrategy"] == "Halted"


async def test_kubectl_finds_the_api_and_takes_nothing_in_it_for_an_object(kubectl: Path, kubeconfig: Path) -> None:
    async def run(*arguments: str) -> str:
        done = await anyio.run_process([kubectl, "--kubeconfig", kubeconfig, *arguments], stderr=subprocess.PIPE)
        return done.stdout.decode()

    group = json.loads(await run("get", "--raw", f"/apis/{SUBRESOURCES}"))
    assert [each["version"] for each in group["versions"]] == [*SUBRESOURCE_VERSIONS]
    for version in SUBRESOURCE_VERSIONS:
        base = f"/apis/{SUBRESOURCES}/{version}"
        assert json.loads(await run("get", "--raw", base))["kind"] == "APIResourceList"
        health = json.loads(await run("get", "--raw", f"{base}/healthz"))
        assert health["apiserver"]["connectivity"] == "ok"
    resources = await run("api-resources", "--api-group", "kubevirt.io", "-o", "name")
    assert f"{MACHINES}.kubevirt.io" in resources.split()
    assert SUBRESOURCES not in await run("api-resources", "-o", "name")
    assert "No resources found" not in await run("get", "virtualmachines", "-A", "-o", "json")


async def test_a_namespace_is_deleted_without_a_word_about_discovery(kubeconfig: Path) -> None:
    async with await KubeClient.connect(kubeconfig) as kube:
        name = "discovered"
        await kube.create(NAMESPACES, {"metadata": {"name": name}})
        await kube.delete(NAMESPACES, name)
        said: set[str] = set()
        with anyio.fail_after(PATIENCE.total_seconds()):
            answer = await kube.send("GET", NAMESPACES.path(name=name))
            while answer.code == 200:
                conditions = answer.body["status"].get("conditions", [])
                said |= {each["type"] for each in conditions if each["status"] == "True"}
                await anyio.sleep(POLL)
                answer = await kube.send("GET", NAMESPACES.path(name=name))
        assert "NamespaceDeletionDiscoveryFailure" not in said


async def test_it_serves_again_after_a_sigkill(tenant: Tenant, operator: User, cluster: LocalCluster) -> None:
    def process() -> int | None:
        return next(program.pid for program in cluster.status() if program.name == "virt-api")

    async def available() -> bool:
        services = [await tenant.kube.get(API_SERVICES, f"{each}.{SUBRESOURCES}") for each in SUBRESOURCE_VERSIONS]
        return all(
            each["status"] == "True"
            for service in services
            for each in service["status"]["conditions"]
            if each["type"] == "Available"
        )

    first = process()
    psutil.Process(first).kill()
    with anyio.fail_after(PATIENCE.total_seconds()):
        while True:
            if (await operator.put(MACHINES, "gone", "stop")).code == 404 and await available():
                break
            await anyio.sleep(POLL)
    assert process() != first
    await create_vm(tenant, "vm", "Halted")
    assert (await operator.put(MACHINES, "vm", "start")).code == 202


@pytest.mark.parametrize("name", ["console", "vnc", "portforward/22"])
async def test_what_virtctl_would_open_a_websocket_for_says_that_it_is_not_modelled(
    tenant: Tenant, name: str
) -> None:
    answer = await tenant.kube.send("GET", path_of(tenant.namespace, INSTANCES, "vm", name), headers=WEBSOCKET)
    assert (answer.code, answer.body["kind"]) == (501, "Status")
    assert answer.body["message"] == f"{INSTANCES}/{name}: the stand-in for KubeVirt does not model this subresource"
