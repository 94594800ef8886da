"""Requests to the gateway as bytes, over TLS: what no client library would send.

An `exchange` is one request that is framed as HTTP wants it, on a connection that is kept. A `volley` is any bytes on
a connection of their own, and after them a health check that says where the server believes the request has ended:
if a part of the bytes was taken for a request of its own, there is an answer too many.
"""

import contextlib
import io
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message
from http.client import parse_headers
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "Header", "Wire", "framed"]

BOUND = 60
"""Seconds for anything to come. The gateway gives a request 30 s at the kube-apiserver: this is a hang."""

Header = tuple[str | bytes, str | bytes]


@dataclass(frozen=True)
class Answer:
    """One answer, and how long it took."""

    code: int
    headers: Message
    body: bytes
    seconds: float

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"

    def json(self) -> Any:
        return json.loads(self.body)


def framed(method: str, target: str | bytes, headers: Iterable[Header] = (), body: bytes | None = None) -> bytes:
    """A request of these parts, with its length if there is a body; nothing in the parts is checked or quoted."""
    lines = [b" ".join((method.encode(), _bytes(target), b"HTTP/1.1")), b"Host: gateway"]
    lines += [_bytes(name) + b": " + _bytes(value) for name, value in headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


class Wire:
    """Connections to one gateway. Each answer is given to `witness` before it is returned."""

    def __init__(self, url: str, ca_cert: Path, witness: Callable[[str, Answer], None]) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 443)
        self._context = ssl.create_default_context(cafile=str(ca_cert))
        self._context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._witness = witness
        self._kept: _Connection | None = None

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def exchange(
        self, kind: str, method: str, target: str | bytes, headers: Iterable[Header] = (), body: bytes | None = None
    ) -> Answer:
        """One well-framed request. Raises TimeoutError for a hang, ConnectionError if there is no answer."""
        request = framed(method, target, headers, body)
        connection, fresh = (self._kept, False) if self._kept else (self._connect(), True)
        self._kept = None
        answer = connection.ask(request, method)
        if answer is None and not fresh:
            # The server may close a connection that is kept while the request is on its way.
            connection.close()
            connection = self._connect()
            answer = connection.ask(request, method)
        if answer is None:
            connection.close()
            raise ConnectionError(f"no answer to {request[:300]!r}")
        if answer.closes:
            connection.close()
        else:
            self._kept = connection
        self._witness(kind, answer)
        return answer

    def volley(self, kind: str, raw: bytes, method: str = "GET") -> list[Answer]:
        """The answers to these bytes, that of the health check behind them included if it was given."""
        connection = self._connect()
        try:
            connection.send(raw + b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
            answers: list[Answer] = []
            while (answer := connection.answer(method if not answers else "GET")) is not None:
                answers.append(answer)
                self._witness(kind, answer)
            return answers
        finally:
            connection.close()

    def abandon(self, raw: bytes) -> None:
        """Send this much of a request, and leave."""
        connection = self._connect()
        connection.send(raw)
        connection.close()

    def _connect(self) -> "_Connection":
        plain = socket.create_connection(self._address, timeout=BOUND)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return _Connection(self._context.wrap_socket(plain, server_hostname=self._address[0]))
        except BaseException:
            plain.close()
            raise


class _Connection:
    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._socket = tls
        self._stream = io.BufferedReader(socket.SocketIO(tls, "r"))

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, raw: bytes) -> None:
        # A server may answer and close before it has read all: its answer is there to read.
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            self._socket.sendall(raw)

    def ask(self, request: bytes, method: str) -> Answer | None:
        self.send(request)
        return self.answer(method)

    def answer(self, method: str) -> Answer | None:
        """The next answer; None when the server has closed."""
        started = time.perf_counter()
        try:
            status = self._stream.readline()
            if not status:
                return None
            code = int(status.split(b" ", 2)[1])
            headers = parse_headers(self._stream)
            if code == 100:
                return self.answer(method)
            length = headers.get("content-length")
            if code in (204, 304) or (method == "HEAD" and headers.get("connection") != "close"):
                body = b""
            else:
                # To what is no HTTP there is an answer with a body, also if it began like a HEAD.
                body = self._stream.read() if length is None else self._stream.read(int(length))
        except (ConnectionError, ssl.SSLEOFError):
            return None
        return Answer(code, headers, body, time.perf_counter() - started)
