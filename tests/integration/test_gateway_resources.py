"""What the gateway offers beside a virtual machine's life, in front of a real kube-apiserver.

Every refusal is held against the one that the same user gets at the kube-apiserver itself.
"""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from clusters.gateway import ACCESS_REVIEW_SUFFIX
from clusters.gateway.offered import ACTIONS, RESOURCES
from clusters.gateway.openapi import openapi
from tests.integration.gateway_support import ACCOUNT, Tenant, eventually, gateway_tenant, log_entries, subject, vm
from virtflow.kube import Object, Resource
from virtflow.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    HPAS,
    PODS,
    SECRETS,
    VM_ACTIONS,
    VMIRS,
    VMIS,
    VMS,
)

pytestmark = pytest.mark.anyio

VERBS = ["get", "list", "create", "update"]
RULES = [
    *({"apiGroups": [each.group], "resources": [each.plural], "verbs": VERBS} for each in RESOURCES),
    {"apiGroups": [VM_ACTIONS.group], "resources": ["virtualmachines/start", "virtualmachines/stop"]}
    | {"verbs": ["update"]},
]
"""No deletes, and no restart."""


@pytest.fixture
async def tenant(kubeconfig: Path, gateway_url: str, ca_cert: Path) -> AsyncIterator[Tenant]:
    async with gateway_tenant(kubeconfig, gateway_url, ca_cert, RULES) as tenant:
        yield tenant


def manifest(resource: Resource) -> Object:
    template = vm()["spec"]["template"]
    target = {"apiVersion": VMIRS.api_version, "kind": VMIRS.kind, "name": "test"}
    bodies: dict[Resource, Object] = {
        VMS: {"spec": vm()["spec"]},
        VMIS: {"spec": template["spec"]},
        VMIRS: {"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "test"}}, "template": template}},
        HPAS: {"spec": {"maxReplicas": 3, "scaleTargetRef": target}},
        SECRETS: {"stringData": {"password": "correct horse"}},
        PODS: {"spec": {"serviceAccountName": ACCOUNT, "containers": [{"name": "main", "image": "example/image"}]}},
    }
    frame = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "test"}}
    return {**frame, **bodies[resource]}


async def direct(tenant: Tenant, method: str, path: str, body: object = None) -> Object:
    """What the same user is answered by the kube-apiserver itself, which must refuse."""
    answer = await tenant.kube.send(method, path, body=body, headers={"Impersonate-User": tenant.user})
    assert answer.code == 403, answer.body
    return answer.body


def refusal(response: httpx.Response) -> Object:
    assert response.status_code == 403, response.text
    status: Object = response.json()
    del status["details"]["causes"]
    return status


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.plural)
async def test_each_resource_is_served_as_far_as_rbac_lets(tenant: Tenant, resource: Resource) -> None:
    path = f"/{resource.plural}"
    created = await tenant.http.post(f"{path}?dryRun=All&fieldValidation=Strict", json=manifest(resource))
    assert (created.status_code, created.json()["kind"]) == (201, resource.kind), created.text
    assert created.json()["metadata"]["namespace"] == tenant.namespace
    listed = await tenant.http.get(path)
    assert (listed.status_code, listed.json()["kind"]) == (200, f"{resource.kind}List")
    absent = await tenant.http.get(f"{path}/test")
    assert (absent.status_code, absent.json()["reason"]) == (404, "NotFound"), "it was a dry run"

    denied = await tenant.http.delete(f"{path}/test")
    assert refusal(denied) == await direct(tenant, "DELETE", resource.path(tenant.namespace, "test"))
    elsewhere = await tenant.http.post(path, json=manifest(resource), params={"namespace": "default"})
    assert refusal(elsewhere) == await direct(tenant, "POST", resource.path("default"), manifest(resource))


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.plural)
async def test_the_whole_cluster_is_for_whom_a_cluster_role_says(tenant: Tenant, resource: Resource) -> None:
    path = f"/{resource.plural}?allNamespaces=true"
    assert refusal(await tenant.http.get(path)) == await direct(tenant, "GET", resource.path())

    name = f"gateway-test-{uuid.uuid4().hex[:8]}"
    rules = [{"apiGroups": [resource.group], "resources": [resource.plural], "verbs": ["list"]}]
    role_ref = {"apiGroup": CLUSTER_ROLES.group, "kind": CLUSTER_ROLES.kind, "name": name}
    binding = {"metadata": {"name": name}, "roleRef": role_ref, "subjects": [subject(tenant.namespace)]}
    await tenant.kube.create(resource, manifest(resource), tenant.namespace)
    try:
        await tenant.kube.create(CLUSTER_ROLES, {"metadata": {"name": name}, "rules": rules})
        await tenant.kube.create(CLUSTER_ROLE_BINDINGS, binding)

        async def allowed() -> httpx.Response | None:
            response = await tenant.http.get(path)
            return response if response.status_code == 200 else None

        items = (await eventually(allowed)).json()["items"]
        assert (tenant.namespace, "test") in [
            (item["metadata"]["namespace"], item["metadata"]["name"]) for item in items
        ]
    finally:
        await tenant.kube.delete(CLUSTER_ROLE_BINDINGS, name)
        await tenant.kube.delete(CLUSTER_ROLES, name)


async def test_a_machine_is_started_and_stopped_and_restarted_if_the_role_says(
    tenant: Tenant, access_log: Path, audit_log: Path
) -> None:
    assert (await tenant.http.post("/virtualmachines", json=vm())).status_code == 201
    request_id = f"gateway-test-{uuid.uuid4().hex}"
    started = await tenant.http.put("/virtualmachines/test-vm/start", headers={"X-Request-Id": request_id})
    assert started.status_code == 202, started.text

    async def strategy() -> str:
        machine = (await tenant.http.get("/virtualmachines/test-vm")).json()
        return str(machine["spec"]["runStrategy"])

    assert await strategy() == "Always"
    (line,) = await log_entries(access_log, "request_id", request_id, 1)
    assert (line["verb"], line["resource"], line["subresource"], line["name"], line["code"]) == (
        "update",
        "virtualmachines",
        "start",
        "test-vm",
        202,
    )
    events = {event["auditID"]: event for event in await log_entries(audit_log, "auditID", request_id, 2)}
    assert request_id + ACCESS_REVIEW_SUFFIX in events
    assert events[request_id]["impersonatedUser"]["username"] == tenant.user
    assert events[request_id]["objectRef"]["subresource"] == "start"

    again = await tenant.http.put("/virtualmachines/test-vm/start", json={"paused": False})
    assert (again.status_code, again.json()["reason"]) == (409, "Conflict")

    stopped = await tenant.http.put("/virtualmachines/test-vm/stop", json={"gracePeriod": 0})
    assert stopped.status_code == 202, stopped.text
    assert await strategy() == "Halted"

    denied = await tenant.http.put("/virtualmachines/test-vm/restart")
    path = VM_ACTIONS.path(tenant.namespace, "test-vm", "restart")
    assert refusal(denied) == await direct(tenant, "PUT", path)
    assert '"virtualmachines/restart" in API group "subresources.kubevirt.io"' in denied.json()["message"]


async def test_a_dry_start_starts_nothing(tenant: Tenant) -> None:
    assert (await tenant.http.post("/virtualmachines", json=vm())).status_code == 201
    refused = await tenant.http.put("/virtualmachines/test-vm/start?dryRun=All")
    assert refused.status_code == 400, "KubeVirt does not look at the query: it would start the machine"
    dry = await tenant.http.put("/virtualmachines/test-vm/start", json={"dryRun": ["All"]})
    assert dry.status_code == 202, dry.text
    machine = (await tenant.http.get("/virtualmachines/test-vm")).json()
    assert machine["spec"]["runStrategy"] == "Halted"


@pytest.mark.parametrize("action", ACTIONS)
async def test_anothers_machine_is_not_started_nor_stopped(tenant: Tenant, action: str) -> None:
    denied = await tenant.http.put(f"/virtualmachines/test-vm/{action}", params={"namespace": "default"})
    path = VM_ACTIONS.path("default", "test-vm", action)
    assert refusal(denied) == await direct(tenant, "PUT", path)


async def test_what_is_in_a_secret_is_in_no_log_and_a_pods_body_in_none_of_the_gateways(
    tenant: Tenant, access_log: Path, audit_log: Path
) -> None:
    request_id = f"gateway-test-{uuid.uuid4().hex}"
    secret, quoted = f"secret-{uuid.uuid4().hex}", f"quoted-{uuid.uuid4().hex}"
    encoded = base64.b64encode(secret.encode()).decode()
    pod, unsound = manifest(PODS), manifest(PODS)
    pod["spec"]["containers"][0]["env"] = [{"name": "PASSWORD", "value": quoted}]
    unsound["spec"]["containers"][0]["imagePullPolicy"] = quoted
    sent = [
        ("POST", "/secrets", {**manifest(SECRETS), "stringData": {"password": secret}}, 201),
        ("PUT", "/secrets/test", {**manifest(SECRETS), "data": {"password": encoded}}, 200),
        ("GET", "/secrets/test", None, 200),
        ("GET", "/secrets", None, 200),
        ("POST", "/secrets", {**manifest(SECRETS), "data": secret}, 400),
        ("POST", "/secrets", {**manifest(SECRETS), "apiVersion": quoted}, 400),
        ("PUT", "/secrets/test", {**manifest(SECRETS), "type": quoted}, 422),
        ("POST", "/pods", pod, 201),
        ("POST", "/pods", unsound, 422),
        ("GET", "/pods/test", None, 200),
    ]
    for number, (method, path, body, code) in enumerate(sent):
        headers = {"X-Request-Id": f"{request_id}-{number}"}
        response = await tenant.http.request(method, path, json=body, headers=headers)
        assert response.status_code == code, f"{method} {path}: {response.text}"
        if code == 422:
            assert quoted in response.json()["message"], "the caller is told"

    await log_entries(access_log, "request_id", request_id, len(sent))
    await log_entries(audit_log, "auditID", f"{request_id}-8", 1)
    words_of = {audit_log: (secret, encoded)}
    for log in (access_log, access_log.with_name("gateway.log"), audit_log):
        text = await asyncio.to_thread(log.read_text)
        for word in words_of.get(log, (secret, encoded, quoted)):
            assert word not in text, log


@pytest.mark.parametrize("resource", [VMS, VMIS, VMIRS], ids=lambda each: each.plural)
async def test_the_documents_examples_are_accepted(tenant: Tenant, resource: Resource) -> None:
    example = openapi()["components"]["schemas"][resource.kind]["example"]
    created = await tenant.http.post(f"/{resource.plural}?dryRun=All&fieldValidation=Strict", json=example)
    assert created.status_code == 201, created.text
    assert created.headers.get("warning") is None


async def test_figures_and_the_document_are_for_anybody(tenant: Tenant) -> None:
    await tenant.http.get("/secrets")
    del tenant.http.headers["authorization"]
    figures = await tenant.http.get("/metrics")
    assert 'gateway_requests_total{code="200",resource="secrets",verb="list",verdict="allowed"}' in figures.text
    assert tenant.namespace not in figures.text
    document = await tenant.http.get("/openapi.json")
    assert (document.status_code, document.json()["info"]["title"]) == (200, "IAM gateway")
    assert (await tenant.http.get("/docs")).status_code == 200
    assert (await tenant.http.get("/secrets")).status_code == 401
