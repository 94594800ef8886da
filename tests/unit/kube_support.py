"""A small server that plays as much of a kube-apiserver as a test says, over real HTTP."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer

from clusters.local.kubeconfig import kubeconfig_of_token
from virtflow.kube import KubeClient

TOKEN = "a-token"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def client_of(handler: Handler, folder: Path) -> AsyncIterator[KubeClient]:
    """A client of a server that answers every request by the handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app, host="127.0.0.1") as server:
        kubeconfig = folder / "kubeconfig.yaml"
        kubeconfig_of_token(kubeconfig, str(server.make_url("")).rstrip("/"), folder / "unused.crt", TOKEN)
        async with await KubeClient.connect(kubeconfig, agent="test-agent") as kube:
            yield kube
