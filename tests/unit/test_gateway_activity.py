"""What an activity makes of the gateway's answer that it is to come again."""

import dataclasses
from collections.abc import AsyncIterator
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


@asynccontextmanager
async def refusing(headers: dict[str, str], folder: Path) -> AsyncIterator[Gateway]:
    """The activity, and a gateway that has no room."""

    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.json_response({"message": "too many"}, status=429, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
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
    request = GatewayRequest(Tenant("t", "t", ["u"]), Verb.LIST, bearer=Bearer.NONE)
    async with refusing(header, tmp_path) as gateway:
        with pytest.raises(ApplicationError, match="429") as refused:
            await ActivityEnvironment().run(gateway.send, request)
    assert refused.value.next_retry_delay == delay
    assert not refused.value.non_retryable
