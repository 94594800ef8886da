"""The gateway's side of a connection: how long and how much a client may take before, between and after its requests.

uvicorn bounds the time between two requests, and nothing else: its parser takes headers without end, and whoever
sends a byte now and then, or does not read what was answered, has a connection for ever. An ASGI application hears
of a request when its head is complete, so this is in uvicorn's protocol, over which a connection has one deadline:

- until the TLS handshake is done, and until a request's head is complete (408);
- after an answer that came before the request's body was at its end, which nobody reads any more;
- whenever a client has left so much of its answer unread that the connection takes no more.

A body's time is the application's to bound, as is the request's: it can say why, under the request's id.
"""

import asyncio
import contextlib
import json
import signal
import ssl
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from clusters.gateway.limits import STOP_LIMIT
from clusters.gateway.status import StatusError

__all__ = ["MAX_CONNECTIONS", "MAX_HEAD", "MAX_HEADERS", "server_of", "tls_context"]

MAX_HEAD = 32 * 1024
"""Bytes of a request's path and headers, and of what follows its body. A token has one or two thousand."""
MAX_HEADERS = 100
MAX_CONNECTIONS = 2000
"""Beyond it a client is answered 503, and the connection closed."""

HEAD_LIMIT = timedelta(seconds=10)
"""For the TLS handshake, and for a request's head, from the connection on or from the first byte of the next one."""
IDLE_LIMIT = timedelta(seconds=15)
"""Between two requests."""
ANSWER_LIMIT = timedelta(seconds=20)
"""For a client to read what was answered, or some of it if it is long."""
LEAVE_LIMIT = timedelta(seconds=2)
"""For a client to take its refusal, and to stop sending what nobody reads."""


class Protocol(HttpToolsProtocol):
    """One connection. `_deadline` is the only timer beside uvicorn's own for idle connections."""

    _deadline: asyncio.TimerHandle | None = None
    _refusal: StatusError | None = None
    _unseen = _headers = 0
    """Bytes that the parser has not handed on yet, and headers of this request."""
    _ends_with_body = False
    """Whether a request is there whose body is not at its end."""
    _keep_alive = True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._set_deadline(HEAD_LIMIT, self._give_up_head)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(StatusError(503, "The gateway has as many connections as it may have. Try again later."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadline()
        super().connection_lost(exc)
        # Where there was an error uvicorn leaves it to fire for a connection that is gone.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deadline is None and self._is_idle():
            # From the first byte on, whatever it is: of empty lines before a request the parser says nothing.
            self._set_deadline(HEAD_LIMIT, self._give_up_head)
        self._unseen += len(data)
        super().data_received(data)
        if self._unseen > MAX_HEAD and not self.transport.is_closing():
            self._refuse(too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._headers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._headers += 1
        if self._headers > MAX_HEADERS:
            self._refusal = too_large()
            raise self._refusal

    def on_headers_complete(self) -> None:
        self._unseen = 0
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD:
            self._refusal = too_large()
            raise self._refusal
        self._end_deadline()
        super().on_headers_complete()
        # An answer before the body's end is the connection's last, and says so: nobody would read the rest.
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
        self._ends_with_body = True

    def on_body(self, body: bytes) -> None:
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unseen = 0
        self._ends_with_body = False
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._ends_with_body:
            self._set_deadline(LEAVE_LIMIT, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_deadline(ANSWER_LIMIT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_deadline()

    def shutdown(self) -> None:
        super().shutdown()
        self._keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser, or one of the methods that it calls, has raised."""
        self._refuse(self._refusal or StatusError(400, "This is no HTTP request."))

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up_head(self) -> None:
        self._deadline = None
        if not self._is_idle():
            # It is the second one, behind a request that is being answered: that one is the connection's last.
            self.cycle.keep_alive = False
        elif self._unseen:
            self._refuse(StatusError(408, "The request's head was not complete in time."))
        else:
            self.transport.close()

    def _refuse(self, error: StatusError) -> None:
        """Answer what no application has seen, unless that would be in the middle of another answer, and close."""
        if self._is_idle():
            request_id = uuid.uuid4().hex
            self.logger.info("%s: refused with %s: %s", request_id, error.code, error.message)
            body = json.dumps(error.status(request_id)).encode()
            head = f"content-type: application/json\r\nx-request-id: {request_id}\r\nconnection: close\r\n"
            length = f"content-length: {len(body)}\r\n\r\n"
            self.transport.write(STATUS_LINE[error.code] + head.encode() + length.encode() + body)
        self._set_deadline(LEAVE_LIMIT, self.transport.abort)
        self.transport.close()

    def _set_deadline(self, limit: timedelta, end: Callable[[], None]) -> None:
        self._end_deadline()
        self._deadline = self.loop.call_later(limit.total_seconds(), end)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """uvicorn's, but it bounds the TLS handshake, and SIGTERM is what it was asked for: it ends with 0."""

    async def startup(self, sockets: Any = None) -> None:
        loop, config = asyncio.get_running_loop(), self.config

        def protocol() -> Protocol:
            return Protocol(config, self.server_state, {}, loop)

        listener = await loop.create_server(
            protocol,
            host=config.host,
            port=config.port,
            ssl=config.ssl,
            backlog=config.backlog,
            ssl_handshake_timeout=HEAD_LIMIT.total_seconds(),
            # For what is still to be read of an answer, too.
            ssl_shutdown_timeout=ANSWER_LIMIT.total_seconds(),
        )
        self.servers, self.started = [listener], True

    async def shutdown(self, sockets: Any = None) -> None:
        cast("Starlette", self.config.app).state.stopping = True
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, setattr, self, "should_exit", True)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def server_of(app: Starlette, port: int, certificate: Path, key: Path) -> Server:
    """On 127.0.0.1, with TLS. SIGTERM ends it when all that was accepted is answered, `STOP_LIMIT` at the latest."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        ssl_context_factory=lambda *_: tls_context(certificate, key),
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(IDLE_LIMIT.total_seconds()),
        timeout_graceful_shutdown=int(STOP_LIMIT.total_seconds()),
    )
    return Server(config)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, said here so that no machine's configuration says otherwise; the ciphers are OpenSSL's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context


def too_large() -> StatusError:
    return StatusError(431, f"The request's head is over {MAX_HEAD} bytes or {MAX_HEADERS} headers.")
