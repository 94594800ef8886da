"""What a client may do to the gateway's connections: real sockets and TLS, on the event loop that the gateway has."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from clusters.gateway import server as module
from clusters.gateway.server import MAX_HEAD, MAX_HEADERS, tls_context
from clusters.local import pki
from tests.unit.connection_support import (
    GET,
    GET_LONG,
    LONG_ANSWER,
    PATIENCE,
    Running,
    is_closed,
    running_server,
    serves,
    status_of,
    until,
)

pytestmark = pytest.mark.anyio

SHORT = timedelta(milliseconds=200)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    # So long that no connection ends in a test's time because of it.
    monkeypatch.setattr(module, "ANSWER_LIMIT", timedelta(seconds=10 * PATIENCE))
    async with running_server(tmp_path) as running:
        yield running


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


TRAILED = b"POST / HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"


@pytest.mark.parametrize("trailers", [b"authorization: Bearer x\r\n\r\n", b"a: b\r\nhost: x\r\n\r\n"])
@pytest.mark.parametrize("apart", [False, True])
async def test_a_trailer_is_no_header(gateway: Running, trailers: bytes, apart: bool) -> None:
    async with gateway.connection() as connection:
        if apart:
            connection.send(TRAILED)
            await until(lambda: any(each.cycle for each in gateway.protocols))
            connection.send(trailers)
        else:
            connection.send(TRAILED + trailers)
        assert "trailers" in status_of(await connection.rest())["message"]


async def test_no_refusal_is_taken_for_the_answer_before_it(gateway: Running) -> None:
    async with gateway.connection() as connection:
        connection.send(b"GET /held HTTP/1.1\r\nhost: g\r\n\r\n" + TRAILED + b"a: b\r\n\r\n")
        assert b"HTTP/1.1 400" not in await connection.rest()


@pytest.mark.parametrize(
    "head", [GET + b"connection: upgrade\r\nupgrade: websocket\r\n", b"CONNECT a:1 HTTP/1.1\r\n"]
)
async def test_who_would_speak_otherwise_is_refused_with_all_behind_it(gateway: Running, head: bytes) -> None:
    async with gateway.connection() as connection:
        connection.send(head + b"\r\n" + GET + b"\r\n")
        assert "Upgrade" in status_of(await connection.rest())["message"]


async def test_a_request_behind_another_is_answered_however_late_its_body_is(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_LIMIT", timedelta(0))
    async with gateway.connection() as connection:
        connection.send(GET + b"\r\nPOST / HTTP/1.1\r\nhost: g\r\ncontent-length: 3\r\n\r\n")
        assert b" 200 " in await connection.head()
        monkeypatch.undo()
        # More than a turn of the loop later, which is when the connection would be gone.
        assert await serves(gateway)
        connection.send(b"two")
        assert b" 200 " in await connection.head()
        assert await asyncio.wait_for(connection.reader.readexactly(3), PATIENCE) == b"two"


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
    async with gateway.connection() as connection:
        # As of a connection's second request its time begins with its first byte, however slow the machine is.
        await connection.served()
        monkeypatch.setattr(module, "HEAD_LIMIT", SHORT)
        connection.send(begun)
        assert status_of(await connection.rest())["code"] == 408
    assert await is_closed(gateway)


async def test_who_sends_nothing_is_told_nothing(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_LIMIT", SHORT)
    async with gateway.connection() as connection:
        assert await connection.rest() == b""


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
        connection.send(GET_LONG)
        # The stream's own buffer is full soon, and nobody empties it.
        await until(lambda: gateway.paused)
        assert await is_closed(gateway)
    assert await serves(gateway)


async def test_who_does_not_read_is_dropped_whatever_it_sends(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_LIMIT", timedelta(seconds=1))
    async with gateway.connection() as connection:
        connection.send(GET_LONG)
        await until(lambda: gateway.paused)
        connection.send(GET_LONG)
        assert await is_closed(gateway)


async def test_a_head_has_its_time_while_an_answer_is_unread(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway.connection() as connection:
        connection.send(GET_LONG)
        await until(lambda: gateway.paused)
        monkeypatch.setattr(module, "HEAD_LIMIT", SHORT)
        connection.send(b"G")
        _, _, refusal = (await connection.rest()).rpartition(b"HTTP/1.1 ")
        assert refusal.startswith(b"408 ")


async def test_who_reads_is_not(gateway: Running) -> None:
    async with gateway.connection() as connection:
        connection.send(GET_LONG[:-2] + b"connection: close\r\n\r\n")
        assert (await connection.rest()).count(b"x") == LONG_ANSWER


async def close_idle(gateway: Running) -> None:
    """uvicorn's timer does, in its time."""
    (protocol,) = gateway.protocols
    protocol.timeout_keep_alive_handler()


async def stop(gateway: Running) -> None:
    gateway.server.should_exit = True
    await until(lambda: not gateway.server.servers[0].is_serving())


@pytest.mark.parametrize("end", [close_idle, stop])
async def test_who_does_not_see_that_it_is_closed_is_not_waited_for(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, end: Callable[[Running], Awaitable[None]]
) -> None:
    monkeypatch.setattr(module, "LEAVE_LIMIT", SHORT)
    async with gateway.connection() as connection:
        await connection.served()
        connection.look_away()
        await end(gateway)
        assert await is_closed(gateway)


async def test_who_reads_its_last_answer_late_has_all_of_it(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVE_LIMIT", timedelta(0))
    async with gateway.connection() as connection:
        connection.send(GET_LONG)
        await until(lambda: gateway.paused)
        await stop(gateway)
        assert (await connection.rest()).count(b"x") == LONG_ANSWER


async def test_who_comes_out_of_its_handshake_after_the_stop_is_closed(gateway: Running) -> None:
    async with gateway.connection(tls=False) as connection:
        # The accepted ones are in the order in which they came.
        assert await serves(gateway)
        await stop(gateway)
        await connection.writer.start_tls(gateway.trust, server_hostname="127.0.0.1")
        connection.send(GET + b"\r\n")
        assert await connection.rest() == b""


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
