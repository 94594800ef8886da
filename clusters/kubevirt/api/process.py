"""The process: webhooks and subresources on one port, over TLS on 127.0.0.1."""

import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import uvloop
from starlette.applications import Starlette

from clusters.kubevirt.api.app import app
from clusters.kubevirt.api.eviction import eviction_route
from clusters.kubevirt.api.subresources import HandlerAccess, LateClient, Nodes, subresource_routes
from clusters.kubevirt.client_certificates import https_server

__all__ = ["serve"]

KEEP_ALIVE = timedelta(minutes=5)
"""The kube-apiserver keeps an idle connection for 90 s, and a lost call of a webhook is a refused write."""

GRACE = timedelta(seconds=2)


def serve(
    kubeconfig: Path,
    port: int,
    tls_cert: Path,
    tls_key: Path,
    front_proxy_ca: Path,
    front_proxies: Sequence[str],
    handler: HandlerAccess,
) -> None:
    """Answer until SIGTERM or SIGINT; then finish what is under way and return.

    The kube-apiserver's aggregator is known by a certificate of `front_proxy_ca` with a name of `front_proxies`.
    """
    # uvicorn shuts down in order and then raises the signal once more: without this it would still be a death by
    # signal, which a supervisor takes for a crash.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    async def run() -> None:
        client = LateClient(kubeconfig)
        async with Nodes.connect(handler) as nodes, aclosing(client):
            subresources = subresource_routes(client, nodes, front_proxies)
            await https_server(
                Starlette(routes=[*app.routes, eviction_route(client), *subresources]),
                port,
                tls_cert,
                tls_key,
                front_proxy_ca,
                # Who calls a webhook, or looks at discovery, shows none.
                clients=ssl.CERT_OPTIONAL,
                keep_alive=KEEP_ALIVE,
                grace=GRACE,
            ).serve()

    uvloop.run(run())
