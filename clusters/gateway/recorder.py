"""Around every request: its id, its line in the access log, its figures, and the headers that every answer has."""

import uuid
from collections.abc import Collection
from datetime import timedelta
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clusters.gateway.access_log import AccessLog, Record
from clusters.gateway.answers import on_bug
from clusters.gateway.metrics import Metrics
from clusters.gateway.requests import REQUEST_ID

__all__ = ["Recorder"]

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""For what has no headers of its own in their place: nobody keeps an answer, takes it for a page, or frames it."""


class Recorder:
    """What is served to anybody, at the paths `unrecorded`, has no line and no figures: nobody asked for anything.

    A bug is answered here, not by Starlette, whose own answer to one comes past every middleware.
    """

    def __init__(self, app: ASGIApp, access_log: AccessLog, metrics: Metrics, unrecorded: Collection[str]) -> None:
        self._app = app
        self._access_log = access_log
        self._metrics = metrics
        self._unrecorded = unrecorded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        record = scope.setdefault("state", {})["record"] = Record(request_id, method=scope["method"])
        if scope["path"] in self._unrecorded:
            await self._answer(scope, receive, send, record)
            return
        started = perf_counter()
        try:
            with self._metrics.in_flight.track_inprogress():
                await self._answer(scope, receive, send, record)
        finally:
            seconds = perf_counter() - started
            self._metrics.answered(record, seconds)
            self._access_log.write(record, timedelta(seconds=seconds))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, record: Record) -> None:
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                record.code = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = record.request_id
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except Exception as error:
            response = await on_bug(Request(scope), error)
            if not begun:
                await response(scope, receive, with_headers)
            raise
