"""The guests' HTTP service: one port for all of them, a path for each guest and each front door.

What a request waits for is one asyncio timer, set to the end of the slot its guest's machine gave it. The
connection that balancing needs to know of is uvicorn's own: an ASGI scope names a client's address and port,
but does not say when it hung up, and a port that is used again would inherit the guest of the one before.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from clusters.kubevirt.guests.directory import Connection, Directory, Guest

__all__ = ["guests_app", "guests_server", "listening_socket", "loop_clock"]

LEAST_COST, MOST_COST = timedelta(milliseconds=1), timedelta(seconds=10)
MILLISECOND = timedelta(milliseconds=1)

GUEST = "/namespaces/{namespace}/virtualmachineinstances/{name}"
POWERED_OFF, CRASHED = 0, 1
"""Exit codes of a guest's launcher."""

KEEP_ALIVE = timedelta(minutes=5)
"""Longer than any client pauses between two requests: it is the client that decides when it reconnects."""

DRAIN = timedelta(seconds=1)


def loop_clock() -> timedelta:
    """The running event loop's own time, so that a slot's end can be handed to its timers."""
    return timedelta(seconds=asyncio.get_running_loop().time())


def guests_app(
    directory: Directory,
    replica_set_uid: Callable[[str, str], str | None],
    end_guest: Callable[[Guest, int], Awaitable[bool]],
    request_cost: timedelta,
) -> Starlette:
    """The ASGI application; `replica_set_uid` finds a VMIRS by namespace and name, `end_guest` ends a guest.

    A guest answers `{"guest": name, "waited_ms": .., "cost_ms": ..}`. 404: no such VMI or VMIRS; 503: nobody
    to answer, too many waiting, the guest is paused, or ended meanwhile; 400: a cost out of bounds. A POST of a
    guest's `poweroff` or `crash` is answered with 202, and what it brings about is seen in the cluster.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def guest(request: Request) -> Response:
        found = guest_of(directory, request)
        return nobody(request) if found is None else await serve(request, found, request_cost)

    def end(exit_code: int) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            found = guest_of(directory, request)
            if found is not None and found.paused:
                return paused(found)
            if found is None or not await end_guest(found, exit_code):
                return nobody(request)
            return JSONResponse({"guest": found.name}, status_code=202)

        return endpoint

    async def front_door(request: Request) -> Response:
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        uid = replica_set_uid(namespace, name)
        if uid is None:
            return failure(404, f"there is no VMIRS {namespace}/{name}")
        found = directory.route(uid, request.state.connection)
        if found is None:
            return failure(503, f"VMIRS {namespace}/{name} has no Ready guest")
        return await serve(request, found, request_cost)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route(f"{GUEST}/", guest),
            Route(f"{GUEST}/poweroff", end(POWERED_OFF), methods=["POST"]),
            Route(f"{GUEST}/crash", end(CRASHED), methods=["POST"]),
            Route("/namespaces/{namespace}/virtualmachineinstancereplicasets/{name}/", front_door),
        ]
    )


def guest_of(directory: Directory, request: Request) -> Guest | None:
    return directory.get(request.path_params["namespace"], request.path_params["name"])


async def serve(request: Request, guest: Guest, usual_cost: timedelta) -> Response:
    asked = request.query_params.get("cost_ms")
    try:
        cost = usual_cost if asked is None else timedelta(milliseconds=float(asked))
        if not LEAST_COST <= cost <= MOST_COST:
            raise ValueError
    except (ValueError, OverflowError):
        bounds = f"{LEAST_COST / MILLISECOND:.0f} to {MOST_COST / MILLISECOND:.0f}"
        return failure(400, f"cost_ms={asked!r} is not a number of milliseconds from {bounds}")
    if guest.paused:
        return paused(guest)
    now = loop_clock()
    slot = guest.machine.admit(now, cost)
    if slot is None:
        return failure(503, f"guest {guest.name} has too many requests waiting")
    try:
        async with asyncio.timeout_at(slot.end.total_seconds()):
            await guest.stopped.wait()
    except TimeoutError:
        waited = (slot.start - now) / MILLISECOND
        return JSONResponse({"guest": guest.name, "waited_ms": waited, "cost_ms": cost / MILLISECOND})
    return failure(503, f"guest {guest.name} {'ended' if guest.ended else 'was paused'} before it answered")


def nobody(request: Request) -> Response:
    return failure(404, "no guest runs in VMI {namespace}/{name}".format(**request.path_params))


def paused(guest: Guest) -> Response:
    return failure(503, f"guest {guest.name} is paused")


def failure(code: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=code)


class ConnectionAware(H11Protocol):
    """Hands each request the `Connection` it came on, and closes that with the client's."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.connection = Connection()
        self.app_state = {**self.app_state, "connection": self.connection}

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.close()
        super().connection_lost(exc)


def guests_server(app: Starlette) -> uvicorn.Server:
    """A server of the application, for `serve(sockets=[listening_socket(port)])`."""
    config = uvicorn.Config(
        app,
        http=ConnectionAware,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_keep_alive=int(KEEP_ALIVE.total_seconds()),
        timeout_graceful_shutdown=int(DRAIN.total_seconds()),
    )
    return uvicorn.Server(config)


def listening_socket(port: int) -> socket.socket:
    """A socket on 127.0.0.1 (0: any free port). Raises OSError, where uvicorn's own would leave the interpreter."""
    listener = socket.create_server(("127.0.0.1", port))
    # asyncio sets this only on sockets that name their protocol, which these do not; without it the head and the
    # body of an answer, written apart, wait for the client's delayed acknowledgement: 40 ms on every request.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
