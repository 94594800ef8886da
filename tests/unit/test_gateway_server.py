"""What a client may do to the gateway's connections: real sockets and TLS, on the event loop that the gateway has."""

import asyncio
import json
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from clusters.gateway import server as module
from clusters.gateway.server import MAX_HEAD, MAX_HEADERS, Server, server_of, tls_context
from clusters.local import pki
from virtflow.kube import Object

pytestmark = pytest.mark.anyio

PATIENCE = 20
SHORT = timedelta(milliseconds=200)
GET = b"GET / HTTP/1.1\r\nhost: gateway\r\n"
LONG_ANSWER = 64 * 1024 * 1024


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)

    async def rest(self) -> bytes:
        """All until the gateway closes the connection."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE)


@dataclass
class Running:
    server: Server
    port: int
    trust: ssl.SSLContext

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust)
        try:
            yield Connection(reader, writer)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)


async def echo(request: Request) -> Response:
    return Response(await request.body())


async def early(_: Request) -> Response:
    return Response("no", 413)


class AtItsBeginning:
    """Begins to answer before the body is there, and ends when it is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = await Request(scope, receive).body()
        await send({"type": "http.response.body", "body": body})


async def long(_: Request) -> Response:
    return Response(b"x" * LONG_ANSWER)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    ca = pki.authority(tmp_path, "ca")
    pair = pki.issue(ca, tmp_path, "gateway", "gateway", names=("127.0.0.1",))
    routes = [
        Route("/", echo, methods=["GET", "POST"]),
        Route("/early", early, methods=["POST"]),
        Route("/begun", AtItsBeginning(), methods=["POST"]),
        Route("/long", long),
    ]
    server = server_of(Starlette(routes=routes), 0, pair.cert, pair.key)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Running(server, port, ssl.create_default_context(cafile=str(tmp_path / "ca.crt")))
    server.should_exit = True
    await serving


def status_of(answer: bytes) -> Object:
    head, _, body = answer.partition(b"\r\n\r\n")
    status: Object = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % status["code"])
    assert b"connection: close" in head.lower()
    assert status["kind"] == "Status"
    return status


async def until(condition: Callable[[], bool]) -> bool:
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - of somebody else's state
            await asyncio.sleep(0.01)
    return True


async def is_closed(gateway: Running) -> bool:
    return await until(lambda: not gateway.server.server_state.connections)


async def serves(gateway: Running) -> bool:
    async with gateway.connection() as connection:
        connection.send(GET + b"connection: close\r\n\r\n")
        return (await connection.rest()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "head",
    [
        GET + b"a: " + b"x" * MAX_HEAD + b"\r\n\r\n",
        b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nhost: gateway\r\n\r\n",
        GET + b"a: b\r\n" * MAX_HEADERS + b"\r\n",
        # Nowhere at its end.
        GET + b"a: " + b"x" * 3 * MAX_HEAD,
        b"GET /" + b"x" * 3 * MAX_HEAD,
    ],
    ids=["a long header", "a long path", "many headers", "an endless header", "an endless path"],
)
async def test_a_head_that_is_too_large_is_431(gateway: Running, head: bytes) -> None:
    async with gateway.connection() as connection:
        connection.send(head)
        assert status_of(await connection.rest())["code"] == 431
    assert await serves(gateway)


async def test_a_head_that_is_just_not_too_large_is_served(gateway: Running) -> None:
    async with gateway.connection() as connection:
        connection.send(GET + b"a: b\r\n" * (MAX_HEADERS - 3) + b"b: " + b"x" * (MAX_HEAD - 1000) + b"\r\n")
        connection.send(b"connection: close\r\n\r\n")
        assert (await connection.rest()).startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_http_is_400(gateway: Running) -> None:
    async with gateway.connection() as connection:
        connection.send(b"this is no HTTP\r\n\r\n")
        assert status_of(await connection.rest())["reason"] == "BadRequest"


@pytest.mark.parametrize("coding", [b"x, chunked", b"identity, chunked", b"x\r\ntransfer-encoding: chunked"])
async def test_a_coding_that_others_read_otherwise_is_refused_with_all_behind_it(
    gateway: Running, coding: bytes
) -> None:
    async with gateway.connection() as connection:
        connection.send(
            b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: " + coding + b"\r\n\r\n0\r\n\r\n" + GET + b"\r\n"
        )
        assert status_of(await connection.rest())["reason"] == "BadRequest"


async def test_endless_trailers_are_not_kept(gateway: Running) -> None:
    async with gateway.connection() as connection:
        connection.send(b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: ")
        sent = 0
        with suppress(ConnectionError):
            while gateway.server.server_state.connections:
                connection.send(b"x" * MAX_HEAD)
                await asyncio.wait_for(connection.writer.drain(), PATIENCE)
                sent += MAX_HEAD
        assert sent < LONG_ANSWER


@pytest.mark.parametrize("begun", [b"GET / HT", b"\r\n", GET])
async def test_a_head_that_takes_too_long_is_408(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(module, "HEAD_LIMIT", SHORT)
    async with gateway.connection() as connection:
        connection.send(begun)
        assert status_of(await connection.rest())["code"] == 408
    assert await is_closed(gateway)


async def test_who_sends_nothing_is_told_nothing(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_LIMIT", SHORT)
    async with gateway.connection() as connection:
        assert await connection.rest() == b""


async def test_a_second_request_has_its_time_too(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway.connection() as connection:
        connection.send(GET + b"\r\n")
        assert b" 200 " in await connection.head()
        monkeypatch.setattr(module, "HEAD_LIMIT", SHORT)
        connection.send(b"\r\n")
        assert status_of(await connection.rest())["code"] == 408


async def test_an_idle_connection_is_closed(gateway: Running) -> None:
    gateway.server.config.timeout_keep_alive = 1
    async with gateway.connection() as connection:
        connection.send(GET + b"\r\n")
        assert b"connection: close" not in await connection.head()
        assert await connection.rest() == b""


@pytest.mark.parametrize("more", [b"", b"x" * 10])
async def test_an_answer_before_the_bodys_end_is_the_last(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(module, "LEAVE_LIMIT", SHORT)
    async with gateway.connection() as connection:
        connection.send(b"POST /early HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\n" + more)
        head = await connection.head()
        assert b" 413 " in head
        assert b"connection: close" in head
    assert await is_closed(gateway)


async def test_who_was_told_that_it_is_the_last_sees_the_connection_closed(gateway: Running) -> None:
    gateway.server.config.timeout_keep_alive = 600
    async with gateway.connection() as connection:
        connection.send(b"POST /begun HTTP/1.1\r\nhost: g\r\ncontent-length: 3\r\n\r\n")
        assert b"connection: close" in await connection.head()
        connection.send(b"end")
        assert b"end" in await connection.rest()


async def test_an_answer_after_it_is_not(gateway: Running) -> None:
    async with gateway.connection() as connection:
        for body in (b"one", b"two"):
            connection.send(b"POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 3\r\n\r\n")
            connection.send(body)
            assert b"connection: close" not in await connection.head()
            assert await asyncio.wait_for(connection.reader.readexactly(3), PATIENCE) == body


async def test_who_does_not_read_is_dropped(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", SHORT)
    async with gateway.connection() as connection:
        connection.send(b"GET /long HTTP/1.1\r\nhost: g\r\n\r\n")
        # The stream's own buffer is full soon, and nobody empties it.
        assert await is_closed(gateway)
    assert await serves(gateway)


async def test_who_reads_is_not(gateway: Running) -> None:
    async with gateway.connection() as connection:
        connection.send(b"GET /long HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n")
        assert len((await connection.rest()).partition(b"\r\n\r\n")[2]) == LONG_ANSWER


async def test_more_connections_than_there_may_be_are_refused(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    async with gateway.connection() as first:
        first.send(GET + b"\r\n")
        assert b" 200 " in await first.head()
        async with gateway.connection() as second:
            assert status_of(await second.rest())["code"] == 503
        first.send(GET + b"connection: close\r\n\r\n")
        assert b" 200 " in await first.rest()
    assert await is_closed(gateway)
    assert await serves(gateway)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_is_spoken_as_of_1_2(gateway: Running, version: ssl.TLSVersion) -> None:
    gateway.trust.minimum_version = gateway.trust.maximum_version = version
    assert await serves(gateway)


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """The version that two sides agree on, in memory. Raises SSLError where they do not."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for side in sides * 5:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return sides[0].version()


async def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    pair = pki.issue(pki.authority(tmp_path, "ca"), tmp_path, "gateway", "gateway", names=("127.0.0.1",))
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    ours, lax = tls_context(pair.cert, pair.key), tls_context(pair.cert, pair.key)
    assert ours.minimum_version == ssl.TLSVersion.TLSv1_2
    for context in (client, ours, lax):
        # Else OpenSSL's own level refuses the old version before ours does.
        context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = lax.minimum_version = ssl.TLSVersion.TLSv1_1
    assert shake_hands(client, lax) == "TLSv1.1"
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        shake_hands(client, ours)
