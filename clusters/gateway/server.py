"""The gateway's side of a connection: how long and how much a client may take before, between and after its requests.

uvicorn bounds the time between two requests, and nothing else: its parser takes headers without end, and whoever
sends a byte now and then, or does not read what was answered, has a connection for ever. An ASGI application hears
of a request when its head is complete, so this is in uvicorn's protocol, where a connection has a deadline:

- until the TLS handshake is done, and until a request's head is complete (408);
- once it is closed, for the client to close it too;
- beside these, whenever a client has left so much of its answer unread that the connection takes no more.

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
from typing import Any, NoReturn

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
"""For a client to close what the gateway has closed, and to stop sending what nobody reads."""


class Deadline:
    """One timer, which may be set and ended again and again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return self._timer is not None

    def set(self, limit: timedelta, end: Callable[[], None]) -> None:
        self.end()
        self._timer = self._loop.call_later(limit.total_seconds(), end)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Protocol(HttpToolsProtocol):
    """One connection. Its two deadlines are the only timers beside uvicorn's own for idle connections."""

    _refusal: StatusError | None = None
    _unseen = _headers = 0
    """Bytes that the parser has not handed on yet, and headers of this request."""
    _in_body = False
    """Whether `cycle` is a request whose body is not at its end."""
    _keep_alive = True

    def __init__(self, owner: uvicorn.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(owner.config, owner.server_state, {}, loop)
        self._owner = owner
        self._deadline = Deadline(loop)
        self._reading = Deadline(loop)
        """The client's, to read. Apart from the other: nothing that it sends may end it."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline.set(HEAD_LIMIT, self._give_up_head)
        if self._owner.should_exit:
            # It was in its TLS handshake when the others were closed.
            self._leave()
        elif len(self.connections) > MAX_CONNECTIONS:
            self._refuse(StatusError(503, "The gateway has as many connections as it may have. Try again later."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.end()
        self._reading.end()
        super().connection_lost(exc)
        # Where there was an error uvicorn leaves it to fire for a connection that is gone.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if not self._deadline and self._is_idle():
            # From the first byte on, whatever it is: of empty lines before a request the parser says nothing.
            self._deadline.set(HEAD_LIMIT, self._give_up_head)
        self._unseen += len(data)
        super().data_received(data)
        if self._unseen > MAX_HEAD and not self.transport.is_closing():
            self._refuse(too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._headers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            # To the parser it is a header as any other, and it would be one to the application if it came in time.
            self._stop_parsing(StatusError(400, "No trailers are taken: a header comes before the body."))
        super().on_header(name, value)
        self._headers += 1
        if self._headers > MAX_HEADERS:
            self._stop_parsing(too_large())

    def on_headers_complete(self) -> None:
        self._unseen = 0
        # "x, chunked" is chunked to this parser and may be none to another: no two are to see other requests here.
        codings = [value.lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            self._stop_parsing(StatusError(400, "The one Transfer-Encoding that is taken is chunked."))
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD:
            self._stop_parsing(too_large())
        if self.parser.should_upgrade():
            # Else the parser drops what is behind it.
            self._stop_parsing(StatusError(400, "HTTP/1.1 is all that is spoken here: no Upgrade, no CONNECT."))
        self._deadline.end()
        super().on_headers_complete()
        # An answer before the body's end is the connection's last, and says so: nobody would read the rest.
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unseen = 0
        self._in_body = False
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._leave()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading.set(ANSWER_LIMIT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reading.end()

    def timeout_keep_alive_handler(self) -> None:
        self._leave()

    def shutdown(self) -> None:
        super().shutdown()
        self._keep_alive = False
        if self.transport.is_closing():
            self._leave()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser, or one of the methods that it calls, has raised."""
        self._refuse(self._refusal or StatusError(400, "This is no HTTP request."))

    def _stop_parsing(self, error: StatusError) -> NoReturn:
        self._refusal = error
        raise error

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _give_up_head(self) -> None:
        if self._unseen:
            self._refuse(StatusError(408, "The request's head was not complete in time."))
        else:
            self._leave()

    def _refuse(self, error: StatusError) -> None:
        """Answer in an application's place, unless that would be before or amid another answer, and close."""
        is_next = self._in_body and not self.pipeline and not self.cycle.response_started
        if is_next:
            self.cycle.disconnected = True
        if is_next or self._is_idle():
            request_id = uuid.uuid4().hex
            self.logger.info("%s: refused with %s: %s", request_id, error.code, error.message)
            body = json.dumps(error.status(request_id)).encode()
            head = f"content-type: application/json\r\nx-request-id: {request_id}\r\nconnection: close\r\n"
            length = f"content-length: {len(body)}\r\n\r\n"
            self.transport.write(STATUS_LINE[error.code] + head.encode() + length.encode() + body)
        self._leave()

    def _leave(self) -> None:
        """Close, and abort if the client does not close too: an idle one of a client's pool does not even look."""
        self.transport.close()
        # With much of an answer before it, the end waits in the buffer: then it is TLS's time for its shutdown.
        if not self.transport.get_write_buffer_size():
            self._deadline.set(LEAVE_LIMIT, self.transport.abort)


class Server(uvicorn.Server):
    """uvicorn's, but it bounds the TLS handshake, and SIGTERM is what it was asked for: it ends with 0."""

    async def startup(self, sockets: Any = None) -> None:
        loop, config = asyncio.get_running_loop(), self.config

        listener = await loop.create_server(
            lambda: Protocol(self, loop),
            host=config.host,
            port=config.port,
            ssl=config.ssl,
            backlog=config.backlog,
            ssl_handshake_timeout=HEAD_LIMIT.total_seconds(),
            # For what is still to be read of an answer, too.
            ssl_shutdown_timeout=ANSWER_LIMIT.total_seconds(),
        )
        self.servers, self.started = [listener], True

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
