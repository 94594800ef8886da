"""The HTTP side of subresources.kubevirt.io, as the kube-apiserver's aggregator calls it."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from clusters.kubevirt.api.refusals import Refused
from clusters.kubevirt.api.subresources.access import VERBS, Unauthorized, Unavailable, authenticate, authorize
from clusters.kubevirt.api.subresources.actions import Actions
from clusters.kubevirt.api.subresources.discovery import VERSION, resource_list
from clusters.kubevirt.api.subresources.nodes import Nodes
from clusters.kubevirt.api.subresources.statuses import too_large
from clusters.kubevirt.install import SUBRESOURCE_VERSIONS
from clusters.kubevirt.install import SUBRESOURCES as GROUP
from virtflow.kube import NO_ANSWER, KubeClient, KubeError, Object, describe

__all__ = ["LateClient", "subresource_routes"]

OPENAPI = {"swagger": "2.0", "info": {"title": "KubeVirt API", "version": VERSION["gitVersion"]}, "paths": {}}
"""Nothing: but the kube-apiserver asks every minute, and logs an error when there is no answer."""

MAX_OPTIONS = 64 * 1024
"""Bytes."""


class LateClient:
    """virt-api's client of the kube-apiserver, made when it is first needed.

    What it imports takes a second. The webhooks can do without, and while they do not answer yet, after a start or a
    crash, nobody can write.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._connecting: asyncio.Task[KubeClient] | None = None

    async def __call__(self) -> KubeClient:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        # Who asked first may hang up while others wait.
        return await asyncio.shield(self._connecting)

    async def aclose(self) -> None:
        if self._connecting is not None:
            await (await self._connecting).close()

    async def _connect(self) -> KubeClient:
        try:
            # In a thread, so that webhooks are answered meanwhile.
            await asyncio.to_thread(importlib.import_module, "kubernetes.aio")
            return await KubeClient.connect(self._kubeconfig, agent="virt-api")
        except BaseException:
            # Who asks next has it tried again.
            self._connecting = None
            raise


def subresource_routes(
    connect: Callable[[], Awaitable[KubeClient]], nodes: Nodes, front_proxies: Sequence[str]
) -> Iterable[BaseRoute]:
    """Discovery for everybody, the rest for whom `access` lets in. `connect` gives virt-api's own client."""

    async def healthz(_: Request) -> Response:
        try:
            version = await (await connect()).request("GET", "/version")
        except (KubeError, *NO_ANSWER) as error:
            return JSONResponse({"apiserver": {"connectivity": "failed", "error": describe(error)}}, 500)
        return JSONResponse({"apiserver": {"connectivity": "ok", "version": version}})

    async def serve(request: Request) -> Response:
        try:
            user = authenticate(front_proxies, request)
            kube = await connect()
            target = await authorize(kube, user, request)
            action = Actions(kube, nodes).get(request.method, target.full_name)
            return await action(target, await options(request))
        except Unauthorized as refusal:
            return PlainTextResponse(str(refusal), 401)
        except Unavailable:
            return Response(status_code=500)
        except Refused as refusal:
            return JSONResponse(refusal.status, refusal.status["code"])

    yield Route("/openapi/v2", constant(OPENAPI))
    for version in SUBRESOURCE_VERSIONS:
        base = f"/apis/{GROUP}/{version}"
        yield Route(base, constant(resource_list(version)))
        yield Route(f"{base}/version", constant(VERSION))
        yield Route(f"{base}/healthz", healthz)
        yield Route(f"{base}/namespaces/{{target:path}}", serve, methods=[*VERBS])


async def options(request: Request) -> bytes:
    """The body. Raises `Refused` (413) if it is too long."""
    # Starlette's own limit would answer without a Status.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_OPTIONS:
            raise too_large(MAX_OPTIONS)
    return bytes(body)


def constant(body: Object) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return JSONResponse(body)

    return answer
