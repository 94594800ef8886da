"""A gateway in this process, and a small server that plays the kube-apiserver behind it."""

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer
from starlette.applications import Starlette

from clusters.gateway import AUDIENCE
from clusters.gateway.access_log import AccessLog
from clusters.gateway.app import create_app
from clusters.gateway.limits import REQUEST_LIMIT
from clusters.gateway.requests import MAX_BODY
from virtflow.kube import KubeClient, Object, Response

TENANT = "system:serviceaccount:tenant-a:tenant-a-user"
OTHER_TENANT = "system:serviceaccount:tenant-b:tenant-b-user"
VM: Object = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "test-vm"}, "spec": {}}
AUTH = {"Authorization": "Bearer good"}
REVIEWS = ("/apis/authentication.k8s.io/v1/tokenreviews", "/apis/authorization.k8s.io/v1/subjectaccessreviews")


@dataclass
class FakeApiserver:
    """Allows tenants all in their namespaces but delete."""

    users: dict[str, str] = field(default_factory=lambda: {"good": TENANT, "other": OTHER_TENANT, "human": "jane"})
    """By token."""
    may_delete: bool = False
    cluster_wide: bool = False
    """Whether tenants may ask for what is in all namespaces."""
    requests: list[web.BaseRequest] = field(default_factory=list)
    bodies: list[Object] = field(default_factory=list)
    code: int = 200
    answer: Object = field(default_factory=lambda: dict(VM))
    headers: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    review_code: int = 201
    audiences: list[str] = field(default_factory=lambda: [AUDIENCE])
    malformed: bool = False
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is answered but what is in `answers_always` while it is not set."""
    answers_always: Collection[str] = ()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        text = await request.text()
        body: Object = json.loads(text) if text else {}
        self.requests.append(request)
        self.bodies.append(body)
        if self.malformed:
            assert request.transport is not None
            request.transport.write(b"this is no HTTP\r\n\r\n")
            request.transport.close()
        if request.path not in self.answers_always:
            await self.open.wait()
        if request.path == REVIEWS[0]:
            return self._review(self._token(body["spec"]))
        if request.path == REVIEWS[1]:
            wanted = body["spec"]["resourceAttributes"]
            own = body["spec"]["user"].startswith(f"system:serviceaccount:{wanted['namespace']}:")
            where = own or (self.cluster_wide and not wanted["namespace"])
            allowed = where and (self.may_delete or wanted["verb"] != "delete")
            return self._review({"allowed": allowed, "reason": "RBAC: as the test wants"})
        response = web.json_response(self.answer, status=self.code, headers=self.headers)
        for warning in self.warnings:
            response.headers.add("Warning", warning)
        return response

    def _review(self, status: Object) -> web.Response:
        return web.json_response({"status": status, "message": "as the test wants"}, status=self.review_code)

    def _token(self, spec: Object) -> Object:
        if spec["token"] not in self.users or spec["audiences"] != [AUDIENCE]:
            return {"authenticated": False, "error": "invalid bearer token"}
        user = {"username": self.users[spec["token"]], "uid": "u1", "groups": ["g1"], "extra": {"e": ["x"]}}
        return {"authenticated": True, "user": user, "audiences": self.audiences}


def lose_answers(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """From now on what is sent as a tenant is done, but its answer is lost."""
    send = KubeClient.send

    async def lose(kube: KubeClient, method: str, path: str, **kwargs: Any) -> Response:
        answer = await send(kube, method, path, **kwargs)
        if path in REVIEWS:
            return answer
        raise error

    patch.setattr(KubeClient, "send", lose)


def is_status(response: httpx.Response, code: int, reason: str) -> bool:
    """Whether it is the gateway's own no."""
    body = response.json()
    assert response.status_code == code, response.text
    assert (body["apiVersion"], body["kind"], body["status"]) == ("v1", "Status", "Failure")
    assert (body["code"], body["reason"]) == (code, reason)
    request_id = {"reason": "RequestId", "message": response.headers["x-request-id"]}
    return request_id in body["details"]["causes"]


@dataclass
class Setup:
    app: Starlette
    fake: FakeApiserver
    server: BaseTestServer
    http: httpx.AsyncClient
    access_log: Path

    def lines(self) -> list[Object]:
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]


@asynccontextmanager
async def running_apiserver(folder: Path) -> AsyncIterator[tuple[FakeApiserver, BaseTestServer, Path]]:
    """A kube-apiserver and the kubeconfig of the gateway, whose own token is `the-gateways-own`."""
    fake = FakeApiserver()
    fake.open.set()
    async with TestServer(_raw_app(fake)) as server:
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "clusters": [{"name": "c", "cluster": {"server": str(server.make_url("/"))}}],
                    "users": [{"name": "u", "user": {"token": "the-gateways-own"}}],
                }
            )
        )
        yield fake, server, kubeconfig


@asynccontextmanager
async def running_gateway(folder: Path, *, timeout: timedelta = REQUEST_LIMIT) -> AsyncIterator[Setup]:
    """A gateway in this process, without a connection to it, and the kube-apiserver behind it."""
    async with running_apiserver(folder) as (fake, server, kubeconfig):
        access_log = AccessLog(folder / "access.log")
        async with await KubeClient.connect(kubeconfig, agent="iam-gateway") as kube:
            app = create_app(kube, access_log, timeout=timeout)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as http:
                yield Setup(app, fake, server, http, folder / "access.log")
        access_log.close()


def _raw_app(fake: FakeApiserver) -> web.Application:
    app = web.Application(client_max_size=4 * MAX_BODY)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    return app
