"""The gateway in front of a real kube-apiserver: RBAC, impersonation, warnings and the audit log are the real ones.

Not here: what is refused before the kube-apiserver is asked (tests/unit/test_gateway.py).
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
import yaml

from clusters.endpoints import Endpoints
from clusters.gateway import (
    ACCESS_REVIEW_SUFFIX,
    NAMESPACE,
    SERVICE_ACCOUNT,
    TENANT_ROLE,
    TOKEN_REVIEW_SUFFIX,
)
from tests.integration.gateway_support import (
    ACCOUNT,
    PATIENCE,
    TOKEN_LIFETIME,
    Tenant,
    client,
    eventually,
    gateway_tenant,
    log_entries,
    vm,
)
from virtflow.kube import KubeClient, Object
from virtflow.kube.resources import ROLE_BINDINGS, SERVICE_ACCOUNTS, VMS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tenant(kubeconfig: Path, gateway_url: str, ca_cert: Path) -> AsyncIterator[Tenant]:
    rules = [{"apiGroups": [VMS.group], "resources": [VMS.plural], "verbs": ["get", "list", "create", "update"]}]
    async with gateway_tenant(kubeconfig, gateway_url, ca_cert, rules) as tenant:
        yield tenant


async def test_a_create_by_the_tenant_is_one_request_in_both_logs(
    tenant: Tenant, access_log: Path, audit_log: Path
) -> None:
    request_id = f"gateway-test-{uuid.uuid4().hex}"
    response = await tenant.http.post("/virtualmachines", json=vm(), headers={"X-Request-Id": request_id})

    assert response.status_code == 201, response.text
    assert response.headers["x-request-id"] == request_id
    assert response.json()["metadata"]["namespace"] == tenant.namespace

    (line,) = await log_entries(access_log, "request_id", request_id, 1)
    assert (line["user"], line["verb"], line["name"], line["code"]) == (tenant.user, "create", "test-vm", 201)
    assert line["verdict"] == "allowed"
    assert "RoleBinding" in line["reason"]

    events = {event["auditID"]: event for event in await log_entries(audit_log, "auditID", request_id, 3)}
    assert events.keys() == {request_id, request_id + TOKEN_REVIEW_SUFFIX, request_id + ACCESS_REVIEW_SUFFIX}
    gateway = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
    assert {event["user"]["username"] for event in events.values()} == {gateway}
    create = events[request_id]
    assert create["impersonatedUser"]["username"] == tenant.user
    assert f"system:serviceaccounts:{tenant.namespace}" in create["impersonatedUser"]["groups"]
    assert (create["objectRef"]["resource"], create["verb"], create["responseStatus"]["code"]) == (
        "virtualmachines",
        "create",
        201,
    )


async def test_no_token_is_in_either_log(tenant: Tenant, access_log: Path, audit_log: Path) -> None:
    request_id = f"gateway-test-{uuid.uuid4().hex}"
    await tenant.http.get("/virtualmachines", headers={"X-Request-Id": request_id})
    await log_entries(access_log, "request_id", request_id, 1)
    await log_entries(audit_log, "auditID", request_id + TOKEN_REVIEW_SUFFIX, 1)
    token = tenant.http.headers["authorization"].removeprefix("Bearer ")
    assert token not in await asyncio.to_thread(access_log.read_text)
    audit = await asyncio.to_thread(audit_log.read_text)
    assert token not in audit, "the audit policy must keep tokenreviews at level Metadata"


async def test_yaml_get_list_and_put(tenant: Tenant) -> None:
    created = await tenant.http.post(
        "/virtualmachines", content=yaml.safe_dump(vm()), headers={"Content-Type": "application/yaml"}
    )
    assert created.status_code == 201, created.text

    one = await tenant.http.get("/virtualmachines/test-vm")
    assert (one.status_code, one.json()["metadata"]["uid"]) == (200, created.json()["metadata"]["uid"])

    everything = await tenant.http.get("/virtualmachines")
    assert [item["metadata"]["name"] for item in everything.json()["items"]] == ["test-vm"]

    put = await change_label(tenant)
    assert (put.status_code, put.json()["metadata"]["labels"]["app"]) == (200, "changed")

    stale = await tenant.http.put("/virtualmachines/test-vm", json=created.json())
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")


async def change_label(tenant: Tenant) -> httpx.Response:
    """As a client does: again, on the newest object, when virt-controller wrote in between."""
    with anyio.fail_after(PATIENCE.total_seconds()):
        while True:
            machine = (await tenant.http.get("/virtualmachines/test-vm")).json()
            machine["metadata"]["labels"]["app"] = "changed"
            put = await tenant.http.put("/virtualmachines/test-vm", json=machine)
            if put.status_code != 409:
                return put


async def test_the_servers_warnings_and_words_come_back(tenant: Tenant) -> None:
    unknown = vm(nonsensé=1)
    lenient = await tenant.http.post("/virtualmachines?dryRun=All", json=unknown)
    assert lenient.status_code == 201, lenient.text
    warnings = [value.decode() for name, value in lenient.headers.raw if name.lower() == b"warning"]
    assert any('unknown field \\"spec.nonsensé\\"' in warning for warning in warnings)

    strict = await tenant.http.post("/virtualmachines?fieldValidation=Strict", json=unknown)
    assert strict.status_code == 400
    assert 'unknown field "spec.nonsensé"' in strict.json()["message"]
    assert (await tenant.http.get("/virtualmachines/test-vm")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "change"),
    [
        ("POST", "/virtualmachines", {"kind": "Pod"}),
        ("POST", "/virtualmachines", {"kind": None}),
        ("POST", "/virtualmachines", {"apiVersion": "v1"}),
        ("PUT", "/virtualmachines/test-vm", {"metadata": {"name": "another"}}),
    ],
)
async def test_what_is_no_such_vm_is_refused(tenant: Tenant, method: str, path: str, change: Object) -> None:
    response = await tenant.http.request(method, path, json={**vm(), **change})
    assert response.status_code in (400, 422), response.text
    assert response.json()["kind"] == "Status"


@pytest.mark.parametrize(
    ("method", "path", "namespace"),
    [
        ("DELETE", "/virtualmachines/test-vm", None),
        ("GET", "/virtualmachines", "default"),
        ("POST", "/virtualmachines", "default"),
    ],
)
async def test_what_rbac_denies_is_said_as_the_apiserver_says_it(
    tenant: Tenant, method: str, path: str, namespace: str | None
) -> None:
    body = vm() if method == "POST" else None
    query = {} if namespace is None else {"namespace": namespace}
    response = await tenant.http.request(method, path, json=body, params=query)
    assert response.status_code == 403

    name = path.removeprefix("/virtualmachines").removeprefix("/") or None
    direct = await tenant.kube.send(
        method,
        VMS.path(namespace or tenant.namespace, name),
        body=body,
        headers={"Impersonate-User": tenant.user},
    )
    refusal = response.json()
    del refusal["details"]["causes"]
    assert refusal == direct.body


async def test_a_namespace_in_the_manifest_is_checked_like_one_in_the_query(tenant: Tenant) -> None:
    elsewhere = vm()
    elsewhere["metadata"]["namespace"] = "default"
    assert (await tenant.http.post("/virtualmachines", json=elsewhere)).status_code == 403
    own = await tenant.http.post(f"/virtualmachines?namespace={tenant.namespace}", json=elsewhere)
    assert own.status_code == 400


async def test_only_a_token_made_for_the_gateway_is_taken(tenant: Tenant, gateway_url: str, ca_cert: Path) -> None:
    for_the_apiserver = await tenant.kube.create_token(tenant.namespace, ACCOUNT, TOKEN_LIFETIME)
    for token in (None, "nonsense", for_the_apiserver):
        async with client(gateway_url, ca_cert, token) as http:
            response = await http.get("/virtualmachines")
            assert (response.status_code, response.json()["reason"]) == (401, "Unauthorized")


async def test_an_account_that_is_gone_is_refused(tenant: Tenant) -> None:
    assert (await tenant.http.get("/virtualmachines")).status_code == 200
    await tenant.kube.delete(SERVICE_ACCOUNTS, ACCOUNT, tenant.namespace)

    async def refused() -> int | None:
        code = (await tenant.http.get("/virtualmachines")).status_code
        return None if code == 200 else code

    assert await eventually(refused) == 401


async def test_the_gateway_may_be_a_tenants_account_but_none_of_kube_systems(
    tenant: Tenant, endpoints: Endpoints
) -> None:
    path = VMS.path(tenant.namespace)
    async with await KubeClient.connect(endpoints.kubeconfig.parent / "gateway.yaml") as gateway:
        as_tenant = await gateway.send("GET", path, headers={"Impersonate-User": tenant.user})
        assert as_tenant.code == 200, as_tenant.body

        system = "system:serviceaccount:kube-system:default"
        as_system = await gateway.send("GET", path, headers={"Impersonate-User": system})
        assert as_system.code == 403
        assert (
            f'"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}" cannot impersonate' in as_system.body["message"]
        )


async def test_an_account_whose_namespace_is_no_tenants_is_refused(tenant: Tenant, access_log: Path) -> None:
    await tenant.kube.delete(ROLE_BINDINGS, SERVICE_ACCOUNT, tenant.namespace)

    async def refused() -> httpx.Response | None:
        response = await tenant.http.get("/virtualmachines")
        return None if response.status_code == 200 else response

    response = await eventually(refused)
    assert (response.status_code, response.json()["reason"]) == (403, "Forbidden")
    assert f'"{tenant.namespace}" of user "{tenant.user}" is not a tenant\'s' in response.json()["message"]
    (line,) = await log_entries(access_log, "request_id", response.headers["x-request-id"], 1)
    assert line["verdict"] == "denied"
    assert TENANT_ROLE in line["reason"]
    assert "cannot impersonate" in line["reason"]


async def test_it_is_ready(gateway_url: str, ca_cert: Path) -> None:
    async with client(gateway_url, ca_cert, None) as http:
        assert (await http.get("/readyz")).status_code == 200
