"""The tenants' activities against a server that plays the kube-apiserver: how they ask, and what they believe."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from temporalio.testing import ActivityEnvironment

from activities.tenants import Tenants
from tests.unit.kube_support import client_of
from virtflow.kube import Informer, Object
from virtflow.kube.resources import NAMESPACES, SERVICE_ACCOUNTS
from workflows.tenant_models import TenantOrder

pytestmark = pytest.mark.anyio

ORDER = TenantOrder("tenant-a", "ns", {"virtflow.io/run": "r"})
NAMESPACE: Object = {"kind": "Namespace", "metadata": {"name": "ns", "uid": "u", "resourceVersion": "50"}}
GONE: Object = {**NAMESPACE, "metadata": {**NAMESPACE["metadata"], "resourceVersion": "51"}}
ACCOUNT: Object = {"metadata": {"name": "default", "namespace": "ns", "uid": "a", "resourceVersion": "10"}}


class Apiserver:
    """Lists are of version 10; a watch tells `events` as they are put. `asked` are all requests but those."""

    def __init__(self, *accounts: Object) -> None:
        self.accounts = list(accounts)
        self.there = True
        self.asked: list[str] = []
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
            while True:
                event = await self.events.get() if "namespaces" in request.path else await asyncio.Future()
                await response.write(json.dumps(event).encode() + b"\n")
        if request.method == "GET" and request.path in ("/api/v1/namespaces", "/api/v1/serviceaccounts"):
            items = self.accounts if "serviceaccounts" in request.path else []
            return web.json_response({"metadata": {"resourceVersion": "10"}, "items": items})
        self.asked.append(f"{request.method} {request.path.removeprefix('/api/v1')}")
        self._was_asked.set()
        if request.method == "DELETE" and request.path == "/api/v1/namespaces/ns":
            return web.json_response(NAMESPACE if self.there else {"code": 404}, status=200 if self.there else 404)
        return web.json_response({})


@asynccontextmanager
async def tenants_on(server: Apiserver, folder: Path) -> AsyncIterator[tuple[Tenants, Informer]]:
    async with client_of(server.handle, folder) as kube:
        namespaces, accounts = Informer(kube, NAMESPACES), Informer(kube, SERVICE_ACCOUNTS)
        async with namespaces.running(), accounts.running():
            yield Tenants(kube, namespaces, accounts), namespaces


async def test_a_copy_that_lags_does_not_take_a_namespace_for_gone(tmp_path: Path) -> None:
    server = Apiserver()
    async with tenants_on(server, tmp_path) as (tenants, namespaces):
        deleting = asyncio.create_task(ActivityEnvironment().run(tenants.delete_tenant, ORDER))
        # The copy is of version 10; the server deletes at version 50.
        with anyio.fail_after(10):
            await namespaces.wait_for("", "ns", lambda namespace: namespace is not None)
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
    async with tenants_on(server, tmp_path) as (tenants, _):
        with anyio.fail_after(10):
            await ActivityEnvironment().run(tenants.delete_tenant, ORDER)
    assert server.asked == ["DELETE /namespaces/ns"]


async def test_the_tenants_own_right_is_made_last(tmp_path: Path) -> None:
    server = Apiserver(ACCOUNT)
    async with tenants_on(server, tmp_path) as (tenants, _):
        with anyio.fail_after(10):
            await ActivityEnvironment().run(tenants.create_tenant, ORDER)
    rbac = "PATCH /apis/rbac.authorization.k8s.io/v1/namespaces/ns"
    assert server.asked[0] == "PATCH /namespaces/ns"
    assert sorted(server.asked[1:4]) == [
        f"{rbac}/rolebindings/iam-gateway",
        f"{rbac}/roles/tenant-a-operator",
        "PATCH /namespaces/ns/serviceaccounts/tenant-a-user",
    ]
    assert server.asked[4:] == [f"{rbac}/rolebindings/tenant-a-binding"]
