"""The process: webhooks and subresources on one port, over TLS on 127.0.0.1."""

import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import uvicorn
import uvloop
from starlette.applications import Starlette

from clusters.kubevirt.api.app import app
from clusters.kubevirt.api.eviction import eviction_route
from clusters.kubevirt.api.subresources import HandlerAccess, LateClient, Nodes, subresource_routes
from clusters.kubevirt.client_certificates import ClientCertificates

__all__ = ["serve"]

KEEP_ALIVE = timedelta(minutes=5)
"""Longer than the kube-apiserver keeps an idle connection (90 s): were this side the first to close, a webhook call
sent at that moment would be lost, and a lost call is a refused write."""

GRACE = timedelta(seconds=2)
"""How long calls under way may take to end; also bounds the wait for a client that never answers TLS's goodbye."""


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
            config = uvicorn.Config(
                Starlette(routes=[*app.routes, eviction_route(client), *subresources]),
                host="127.0.0.1",
                port=port,
                http=ClientCertificates,
                # Console and vnc ask for one: they are to hear that neither is modelled.
                ws="none",
                ssl_certfile=tls_cert,
                ssl_keyfile=tls_key,
                ssl_ca_certs=front_proxy_ca,
                # Who calls a webhook, or looks at discovery, shows none.
                ssl_cert_reqs=ssl.CERT_OPTIONAL,
                lifespan="off",
                access_log=False,
                log_config=None,
                # Who is behind the front proxy is in headers that count only with its certificate.
                proxy_headers=False,
                timeout_keep_alive=int(KEEP_ALIVE.total_seconds()),
                timeout_graceful_shutdown=int(GRACE.total_seconds()),
            )
            await uvicorn.Server(config).serve()

    uvloop.run(run())
