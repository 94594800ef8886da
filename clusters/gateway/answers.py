"""How the gateway answers: always JSON, a Status where it says no. Why it did is noted in the request's record."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager

import aiohttp
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler, Receive, Scope, Send

from clusters.gateway.access_log import Record
from clusters.gateway.status import REASONS, StatusError
from virtflow.kube import Object, describe
from virtflow.kube.client import Response as Answer

__all__ = ["EXCEPTION_HANDLERS", "InPlace", "Paced", "on_bug", "relay", "respond"]

PIECE = 64 * 1024


class Paced(Response):
    """Sent in pieces, so that it takes as long as its client takes it, and is not all in the connection's buffer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for begin in range(0, len(self.body) or 1, PIECE):
            piece, has_more = self.body[begin : begin + PIECE], begin + PIECE < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": has_more})


class InPlace(Response):
    """An answer that keeps its request's place until it is sent: who does not read takes room of its tenant's."""

    def __init__(self, answer: Response, place: AbstractContextManager[object]) -> None:
        self._answer = answer
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await self._answer(scope, receive, send)


def respond(code: int, body: Object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(body), code, headers, media_type="application/json")


def relay(answer: Answer) -> Response:
    """What the kube-apiserver answered, as it came."""
    headers = {"Retry-After": answer.retry_after} if answer.retry_after else {}
    if answer.code < 400 and answer.text:
        # A list may have megabytes, which take longer to write anew than all else that is done here.
        response: Response = Paced(answer.text, answer.code, media_type="application/json")
    else:
        response = respond(answer.code, answer.body, headers)
    # As bytes: a warning may quote a field's name in any script, which Starlette would encode as Latin-1.
    response.raw_headers += [(b"warning", text.encode(errors="surrogateescape")) for text in answer.warnings]
    return response


async def on_status_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StatusError)
    record: Record = request.state.record
    record.reason = error.why
    return respond(error.code, error.status(record.request_id), error.headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = error.status_code if error.status_code in REASONS else 400
    message = f"{request.method} {request.url.path}: {error.detail}."
    return await on_status_error(request, StatusError(code, message, headers=error.headers))


async def on_disconnect(request: Request, error: Exception) -> Response:
    return await on_status_error(request, StatusError(400, "The caller left before the request body was complete."))


async def on_timeout(request: Request, error: Exception) -> Response:
    if not request.state.record.allowed:
        message = "The gateway could not check this request in time. Nothing was written."
    else:
        message = f"The kube-apiserver did not answer in time.{what_is_unknown(request)}"
    return await on_status_error(request, StatusError(504, message))


async def on_no_connection(request: Request, error: Exception) -> Response:
    message = "The gateway cannot reach the kube-apiserver."
    return await on_status_error(request, StatusError(503, message, why=f"{message[:-1]}: {describe(error)}"))


async def on_no_answer(request: Request, error: Exception) -> Response:
    message = "The gateway got no answer of the kube-apiserver's that it can read."
    why = f"{message[:-1]}: {describe(error)}"
    return await on_status_error(request, StatusError(503, message + what_is_unknown(request), why=why))


def what_is_unknown(request: Request) -> str:
    """For who asked for a write that was sent, and whose answer is lost."""
    if not request.state.record.allowed or request.method == "GET":
        return ""
    return " The request may have been carried out all the same: look before repeating it."


async def on_bug(request: Request, error: Exception) -> Response:
    message = "The gateway failed at this request; its log has the cause under this request id."
    return await on_status_error(request, StatusError(500, message, why=f"bug: {describe(error)}"))


EXCEPTION_HANDLERS: Mapping[type[Exception], ExceptionHandler] = {
    StatusError: on_status_error,
    HTTPException: on_http_exception,
    ClientDisconnect: on_disconnect,
    # The nearest base counts: this one is a ClientError, too.
    aiohttp.ServerTimeoutError: on_timeout,
    TimeoutError: on_timeout,
    aiohttp.ClientConnectorError: on_no_connection,
    aiohttp.ClientError: on_no_answer,
    OSError: on_no_answer,
}
