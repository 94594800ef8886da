"""Who is at the other end of a TLS connection, by its client certificate.

uvicorn checks a client's certificate if it is told to, but does not say whose it was.
"""

import asyncio

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["ClientCertificates", "client_name"]


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
