"""The gateway's server around a small application, and clients that do to its connections what they should not."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from clusters.gateway.server import Protocol, Server, server_of
from clusters.local import pki
from virtflow.kube import Object

PATIENCE = 20
GET = b"GET / HTTP/1.1\r\nhost: gateway\r\n"
LONG_ANSWER = 64 * 1024 * 1024
GET_LONG = b"GET /long HTTP/1.1\r\nhost: g\r\n\r\n"


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

    async def served(self) -> None:
        """One request, after which the connection is idle."""
        self.send(GET + b"\r\n")
        assert b" 200 " in await self.head()

    def look_away(self) -> None:
        """From here on nothing that the gateway sends is seen, not even that it closes."""
        cast("asyncio.ReadTransport", self.writer.transport).pause_reading()


@dataclass
class Running:
    server: Server
    port: int
    trust: ssl.SSLContext

    @property
    def protocols(self) -> list[Protocol]:
        """The connections, as the gateway sees them."""
        return [cast("Protocol", each) for each in self.server.server_state.connections]

    @property
    def paused(self) -> bool:
        """Whether a client has left so much unread that no more is written."""
        return any(each.flow.write_paused for each in self.protocols)

    @asynccontextmanager
    async def connection(self, *, tls: bool = True) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.trust if tls else None)
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


async def held(request: Request) -> Response:
    """Answered when the test wants it."""
    await request.app.state.released.wait()
    return Response()


class Long:
    """All of it is sent at once, so that the request is answered long before somebody has read it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for has_more in (True, False):
            await send({"type": "http.response.body", "body": b"x" * (LONG_ANSWER // 2), "more_body": has_more})


@asynccontextmanager
async def running_server(folder: Path) -> AsyncIterator[Running]:
    ca = pki.authority(folder, "ca")
    pair = pki.issue(ca, folder, "gateway", "gateway", names=("127.0.0.1",))
    routes = [
        Route("/", echo, methods=["GET", "POST"]),
        Route("/early", early, methods=["POST"]),
        Route("/begun", AtItsBeginning(), methods=["POST"]),
        Route("/long", Long()),
        Route("/held", held),
    ]
    app = Starlette(routes=routes)
    app.state.released = asyncio.Event()
    server = server_of(app, 0, pair.cert, pair.key)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Running(server, port, ssl.create_default_context(cafile=str(folder / "ca.crt")))
    app.state.released.set()
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
