"""Where an activity sends its requests, and what it makes of the gateway's answers."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.gateway import Gateway
from activities.tokens import Tokens
from clusters.endpoints import Endpoints
from clusters.local import pki
from virtflow.kube import KubeClient
from workflows.models import Bearer, GatewayRequest, Verb
from workflows.tenant_models import Tenant

pytestmark = pytest.mark.anyio


async def test_a_retried_create_looks_where_the_first_try_made_it(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append((request.method, request.raw_path))
        if request.method == "POST":
            return web.json_response({"message": "it is there already"}, status=409)
        return web.json_response({"metadata": {"labels": {"run": "this"}}})

    tenant, labels = Tenant("t", "t", ["u"]), {"run": "this"}
    in_query = GatewayRequest(
        tenant,
        Verb.CREATE,
        manifest="metadata: {name: test-vm}",
        namespace="a&b",
        bearer=Bearer.NONE,
        labels=labels,
    )
    in_manifest = dataclasses.replace(
        in_query, namespace=None, manifest="metadata: {name: test-vm, namespace: tenant-b}"
    )
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=2)
    async with answering(answer, tmp_path) as gateway:
        answers = [await environment.run(gateway.send, request) for request in (in_query, in_manifest)]
    assert [each.code for each in answers] == [201, 201]
    assert asked == [
        ("POST", "/virtualmachines?namespace=a%26b"),
        ("GET", "/virtualmachines/test-vm?namespace=a%26b"),
        ("POST", "/virtualmachines"),
        ("GET", "/virtualmachines/test-vm?namespace=tenant-b"),
    ]


async def test_a_name_is_one_part_of_the_path(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(request.raw_path)
        return web.json_response({})

    request = GatewayRequest(Tenant("t", "t", ["u"]), Verb.GET, name="a/b?c#d", bearer=Bearer.NONE)
    async with answering(answer, tmp_path) as gateway:
        await ActivityEnvironment().run(gateway.send, request)
    assert asked == ["/virtualmachines/a%2Fb%3Fc%23d"]


@asynccontextmanager
async def answering(
    answer: Callable[[web.BaseRequest], Awaitable[web.Response]], folder: Path
) -> AsyncIterator[Gateway]:
    """The activity, and a gateway that is played."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    pki.authority(folder, "ca")
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        endpoints = Endpoints(
            **{field.name: "" for field in dataclasses.fields(Endpoints)}
            | {"gateway_url": str(server.make_url("")), "ca_cert": folder / "ca.crt"}  # type: ignore[arg-type]
        )
        kube = cast("KubeClient", None)
        yield Gateway(kube, http, endpoints, Tokens(kube))


@pytest.mark.parametrize(
    ("header", "delay"),
    [
        ({"Retry-After": "3"}, timedelta(seconds=3)),
        ({"Retry-After": "86400"}, timedelta(seconds=60)),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({"Retry-After": "²"}, None),
        ({}, None),
    ],
)
async def test_it_comes_again_when_it_was_told_to(
    tmp_path: Path, header: dict[str, str], delay: timedelta | None
) -> None:
    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.json_response({"message": "too many"}, status=429, headers=header)

    request = GatewayRequest(Tenant("t", "t", ["u"]), Verb.LIST, bearer=Bearer.NONE)
    async with answering(refuse, tmp_path) as gateway:
        with pytest.raises(ApplicationError, match="429") as refused:
            await ActivityEnvironment().run(gateway.send, request)
    assert refused.value.next_retry_delay == delay
    assert not refused.value.non_retryable
