"""The tenants' activities against a server that plays the kube-apiserver: how they ask, and what they believe."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import tenants as module
from activities.tenants import Tenants
from activities.tokens import Tokens
from tests.unit.kube_support import client_of
from virtflow.kube import Informer, Object, Resource
from virtflow.kube.resources import NAMESPACES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS
from workflows.tenant_models import PolicyRule, Tenant, TenantOrder, TenantSpec

pytestmark = pytest.mark.anyio

ORDER = TenantOrder("tenant-a", "ns", {"virtflow.io/run": "r"})
NAMESPACE: Object = {"kind": "Namespace", "metadata": {"name": "ns", "uid": "u", "resourceVersion": "50"}}
GONE: Object = {**NAMESPACE, "metadata": {**NAMESPACE["metadata"], "resourceVersion": "51"}}
ACCOUNT: Object = {"metadata": {"name": "default", "namespace": "ns", "uid": "a", "resourceVersion": "10"}}
LISTED = {f"/api/v1/{plural}" for plural in ("namespaces", "serviceaccounts", "resourcequotas")}
RBAC = "PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/ns"
QUOTA = "PATCH /namespaces/ns/resourcequotas/tenant-a-quota"


def quota_of(version: int, hard: dict[str, str], status: Object) -> Object:
    meta = {"name": "tenant-a-quota", "namespace": "ns", "uid": "q", "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"hard": hard}, "status": status}


def version_of(obj: Object | None) -> str:
    return str((obj or {"metadata": {}})["metadata"].get("resourceVersion"))


class Apiserver:
    """Lists are of version 10; a watch of namespaces tells `events` as they are put, one of quotas `counted`.

    `asked` are all requests but those, `sent` what came with them. A quota is stored as it comes, at version 20.
    """

    def __init__(self, *accounts: Object, namespaces: tuple[Object, ...] = ()) -> None:
        self.accounts = list(accounts)
        self.namespaces = list(namespaces)
        self.there = True
        self.asked: list[str] = []
        self.sent: dict[str, Object] = {}
        self.counted: asyncio.Queue[Object] = asyncio.Queue()
        self.events: asyncio.Queue[Object] = asyncio.Queue()
        self._was_asked = asyncio.Event()

    async def until_asked(self, number: int) -> None:
        with anyio.fail_after(10):
            while len(self.asked) < number:
                self._was_asked.clear()
                await self._was_asked.wait()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            response = web.StreamResponse()
            await response.prepare(request)
            told = {"/api/v1/namespaces": self.events, "/api/v1/resourcequotas": self.counted}.get(request.path)
            while True:
                event = await told.get() if told else await asyncio.Future()
                await response.write(json.dumps(event).encode() + b"\n")
        if request.method == "GET" and request.path in LISTED:
            items = {"namespaces": self.namespaces, "serviceaccounts": self.accounts}.get(
                request.path.split("/")[-1], []
            )
            return web.json_response({"metadata": {"resourceVersion": "10"}, "items": items})
        self.asked.append(f"{request.method} {request.path.removeprefix('/api/v1')}")
        if request.method == "PATCH":
            self.sent[self.asked[-1]] = json.loads(await request.read())
        self._was_asked.set()
        if request.method == "DELETE" and request.path == "/api/v1/namespaces/ns":
            return web.json_response(NAMESPACE if self.there else {"code": 404}, status=200 if self.there else 404)
        if self.asked[-1] == QUOTA:
            return web.json_response(quota_of(20, self.sent[QUOTA]["spec"]["hard"], {}))
        if self.asked[-1] == "GET /namespaces/ns/serviceaccounts":
            return web.json_response({"items": self.accounts})
        return web.json_response({})


class KnownTokens(Tokens):
    """Notes what is forgotten."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, namespace: str) -> None:
        self.forgotten.append(namespace)


@asynccontextmanager
async def tenants_on(
    server: Apiserver, folder: Path, tokens: Tokens | None = None
) -> AsyncIterator[tuple[Tenants, dict[Resource, Informer]]]:
    async with client_of(server.handle, folder) as kube:
        informers = {each: Informer(kube, each) for each in (NAMESPACES, SERVICE_ACCOUNTS, RESOURCE_QUOTAS)}
        async with AsyncExitStack() as stack:
            for informer in informers.values():
                await stack.enter_async_context(informer.running())
            yield Tenants(kube, tokens or Tokens(kube), *informers.values()), informers


async def test_a_copy_that_lags_does_not_take_a_namespace_for_gone(tmp_path: Path) -> None:
    server = Apiserver()
    async with tenants_on(server, tmp_path) as (tenants, informers):
        deleting = asyncio.create_task(ActivityEnvironment().run(tenants.delete_tenant, ORDER))
        # The copy is of version 10; the server deletes at version 50.
        with anyio.fail_after(10):
            await informers[NAMESPACES].wait_for("", "ns", lambda namespace: namespace is not None)
        assert not deleting.done(), "it believed a copy that had not heard of the namespace"
        server.events.put_nowait({"type": "DELETED", "object": GONE})
        with anyio.fail_after(10):
            await deleting


async def test_the_namespace_goes_first_and_nobody_is_asked_whether_it_is_gone(tmp_path: Path) -> None:
    server = Apiserver()
    server.events.put_nowait({"type": "MODIFIED", "object": NAMESPACE})
    async with tenants_on(server, tmp_path) as (tenants, _):
        deleting = asyncio.create_task(ActivityEnvironment().run(tenants.delete_tenant, ORDER))
        await server.until_asked(4)
        server.events.put_nowait({"type": "DELETED", "object": GONE})
        with anyio.fail_after(10):
            await deleting
    kubevirt = "DELETE /apis/kubevirt.io/v1/namespaces/ns/virtualmachine"
    assert server.asked[0] == "DELETE /namespaces/ns"
    assert sorted(server.asked[1:]) == [f"{kubevirt}instancereplicasets", f"{kubevirt}instances", f"{kubevirt}s"]


async def test_a_namespace_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    server = Apiserver()
    server.there = False
    tokens = KnownTokens()
    async with tenants_on(server, tmp_path, tokens) as (tenants, _):
        with anyio.fail_after(10):
            await ActivityEnvironment().run(tenants.delete_tenant, ORDER)
    assert server.asked == ["DELETE /namespaces/ns"]
    assert tokens.forgotten == ["ns"]


async def test_the_tenants_own_right_is_made_last(tmp_path: Path) -> None:
    server = Apiserver(ACCOUNT)
    async with tenants_on(server, tmp_path) as (tenants, _):
        with anyio.fail_after(10):
            await ActivityEnvironment().run(tenants.create_tenant, ORDER)
    assert server.asked[0] == "PATCH /namespaces/ns"
    assert sorted(server.asked[1:4]) == [
        f"{RBAC}/rolebindings/iam-gateway",
        f"{RBAC}/roles/tenant-a-operator",
        "PATCH /namespaces/ns/serviceaccounts/tenant-a-user",
    ]
    assert server.asked[4:] == [f"{RBAC}/rolebindings/tenant-a-binding"]


SPEC = TenantSpec(
    ["alice", "bob"],
    [PolicyRule([""], ["pods"], ["get"])],
    {"pods": "1"},
    [{"type": "Container", "default": {"cpu": "1"}}],
)


async def test_all_that_a_spec_says_is_made(tmp_path: Path) -> None:
    server = Apiserver(ACCOUNT)
    server.counted.put_nowait({"type": "MODIFIED", "object": quota_of(21, {"pods": "1"}, IN_FORCE)})
    async with tenants_on(server, tmp_path) as (tenants, _):
        with anyio.fail_after(20):
            order = dataclasses.replace(ORDER, spec=SPEC)
            tenant = await ActivityEnvironment().run(tenants.create_tenant, order)
    assert tenant == Tenant("tenant-a", "ns", ["tenant-a-alice", "tenant-a-bob"], SPEC.role)
    assert server.sent[QUOTA]["spec"] == {"hard": {"pods": "1"}}
    assert server.sent["PATCH /namespaces/ns/limitranges/tenant-a-limits"]["spec"] == {"limits": SPEC.limits}
    [rule] = server.sent[f"{RBAC}/roles/tenant-a-operator"]["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    subjects = server.sent[f"{RBAC}/rolebindings/tenant-a-binding"]["subjects"]
    assert [subject["name"] for subject in subjects] == tenant.users
    assert {body["metadata"]["labels"]["virtflow.io/run"] for body in server.sent.values()} == {"r"}


IN_FORCE = {"hard": {"pods": "1"}, "used": {"pods": "0"}}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"hard": {"pods": "1"}},
        {"hard": {"pods": "5"}, "used": {"pods": "0"}},
        {"hard": {}, "used": {"pods": "0"}},
    ],
)
async def test_nobody_is_let_in_before_the_quota_is_in_force(tmp_path: Path, status: Object) -> None:
    server = Apiserver(ACCOUNT)
    binding = f"{RBAC}/rolebindings/tenant-a-binding"
    async with tenants_on(server, tmp_path) as (tenants, informers):
        order = dataclasses.replace(ORDER, spec=SPEC)
        creating = asyncio.create_task(ActivityEnvironment().run(tenants.create_tenant, order))
        await server.until_asked(7)
        server.counted.put_nowait({"type": "MODIFIED", "object": quota_of(30, {"pods": "1"}, status)})
        with anyio.fail_after(20):
            await informers[RESOURCE_QUOTAS].wait_for("ns", "tenant-a-quota", lambda quota: version_of(quota) == "30")
        await asyncio.sleep(0)
        assert not creating.done()
        assert binding not in server.asked
        server.counted.put_nowait({"type": "MODIFIED", "object": quota_of(31, {"pods": "1"}, IN_FORCE)})
        with anyio.fail_after(20):
            await creating
    assert server.asked[-1] == binding


async def test_a_quota_on_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUOTA_LIMIT", timedelta(0))
    spec = TenantSpec(quota={"pods": "1", "count/nothing.example": "1"})
    server = Apiserver(ACCOUNT)
    status = {"hard": spec.quota, "used": {"pods": "0"}}
    server.counted.put_nowait({"type": "MODIFIED", "object": quota_of(21, spec.quota, status)})
    async with tenants_on(server, tmp_path) as (tenants, informers):
        # The copy has the last word already: the limit races nothing.
        with anyio.fail_after(20):
            await informers[RESOURCE_QUOTAS].wait_for("ns", "tenant-a-quota", lambda quota: version_of(quota) == "21")
        with anyio.fail_after(20), pytest.raises(ApplicationError, match="is not in force") as raised:
            await ActivityEnvironment().run(tenants.create_tenant, dataclasses.replace(ORDER, spec=spec))
    assert "nobody has counted count/nothing.example." in raised.value.message
    assert raised.value.non_retryable


async def test_what_another_spec_leaves_out_is_removed(tmp_path: Path) -> None:
    mine: list[Object] = [
        {"metadata": {**ACCOUNT["metadata"], "name": f"tenant-a-{user}", "uid": user}} for user in ("user", "bob")
    ]
    server = Apiserver(ACCOUNT, *mine, namespaces=(NAMESPACE,))
    tokens = KnownTokens()
    async with tenants_on(server, tmp_path, tokens) as (tenants, _):
        with anyio.fail_after(20):
            await ActivityEnvironment().run(tenants.create_tenant, ORDER)
    assert sorted(asked for asked in server.asked if asked.startswith("DELETE")) == [
        "DELETE /namespaces/ns/limitranges/tenant-a-limits",
        "DELETE /namespaces/ns/resourcequotas/tenant-a-quota",
        "DELETE /namespaces/ns/serviceaccounts/tenant-a-bob",
    ]
    assert tokens.forgotten == ["ns"]
