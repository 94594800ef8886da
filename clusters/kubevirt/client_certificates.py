"""An HTTPS server on 127.0.0.1 that knows who is at the other end of a connection, by its client certificate.

uvicorn checks a client's certificate if it is told to, but does not say whose it was.
"""

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ClientCertificates", "client_name", "https_server"]


class ClientCertificates(HttpToolsProtocol):
    """Hands each request the common name of the certificate its connection was opened with."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Filled only with a certificate that has been verified.
        certificate = transport.get_extra_info("peercert") or {}
        subject = dict(attribute for group in certificate.get("subject", ()) for attribute in group)
        self.app_state = {**self.app_state, "client_name": subject.get("commonName", "") if certificate else None}


def client_name(request: Request) -> str | None:
    """The common name of the client's certificate, None if it has shown none."""
    name: str | None = getattr(request.state, "client_name", None)
    return name


def https_server(
    app: Starlette,
    port: int,
    cert: Path,
    key: Path,
    ca: Path,
    *,
    clients: ssl.VerifyMode,
    keep_alive: timedelta,
    grace: timedelta,
) -> uvicorn.Server:
    """A server of the application; what certificate clients show, and `clients` may ask for one, must be of `ca`.

    `keep_alive` is to be longer than any client keeps an idle connection: were this side the first to close, a call
    sent at that moment would be lost. `grace` is how long calls under way may take to end, and bounds the wait for a
    client that never answers TLS's goodbye.
    """
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=ClientCertificates,
        # Console and vnc ask for one: they are to hear that neither is modelled.
        ws="none",
        ssl_certfile=cert,
        ssl_keyfile=key,
        ssl_ca_certs=ca,
        ssl_cert_reqs=clients,
        lifespan="off",
        access_log=False,
        log_config=None,
        # Who is behind the front proxy is in headers that count only with its certificate.
        proxy_headers=False,
        timeout_keep_alive=int(keep_alive.total_seconds()),
        timeout_graceful_shutdown=int(grace.total_seconds()),
    )
    return uvicorn.Server(config)
