"""The gateway's HTTP side: from a request to the tenant's own request at the kube-apiserver.

One path for all five verbs: refuse what is forged, TokenReview, read the body, SubjectAccessReview, send it
on as the tenant, give back what was answered. Nobody's body is read before they are authenticated.

No header of the caller's is ever passed on: the request to the kube-apiserver is made anew, out of what was
checked. What the kube-apiserver answered is not interpreted: its code, body and warnings go back as they came.
"""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from time import perf_counter

import aiohttp
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clusters.gateway.access_log import AccessLog, Record
from clusters.gateway.identity import Reviewer, no_tenant, refused_impersonation, unauthenticated
from clusters.gateway.manifest import MEDIA_TYPES, ManifestError, decode
from clusters.gateway.status import REASONS, StatusError
from virtflow.kube import KubeClient, Object, describe
from virtflow.kube.client import Response as Answer
from virtflow.kube.resources import VMS

__all__ = ["create_app"]

UPSTREAM_TIMEOUT = timedelta(seconds=30)
READY_TIMEOUT = timedelta(seconds=2)
MAX_BODY = 1024 * 1024
"""Bytes. etcd refuses objects over 1.5 MiB anyway."""

COLLECTION = {"GET": "list", "POST": "create"}
# A tenant has no right to delete, and is to hear that from RBAC: the method is served like the others.
OBJECT = {"GET": "get", "PUT": "update", "DELETE": "delete"}

PASSED_QUERY = {"fieldValidation", "dryRun"}
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,47}")
BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
# Names go into the kube-apiserver's path, where ".." would be another path.
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
MAX_NAME = 253
NAME = re.compile(rf"(?=.{{1,{MAX_NAME}}}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


def create_app(kube: KubeClient, access_log: AccessLog, *, timeout: timedelta = UPSTREAM_TIMEOUT) -> Starlette:
    """The ASGI application. `kube` is the gateway's own identity; `timeout` bounds each request it makes."""
    gateway = Gateway(kube, timeout)
    app = Starlette(
        routes=[
            Route("/virtualmachines", gateway.collection, methods=[*COLLECTION]),
            Route("/virtualmachines/{name}", gateway.object, methods=[*OBJECT]),
            Route("/healthz", gateway.healthz),
            Route("/readyz", gateway.readyz),
        ],
        middleware=[Middleware(Recorder, access_log=access_log)],
        exception_handlers={
            StatusError: on_status_error,
            HTTPException: on_http_exception,
            ClientDisconnect: on_disconnect,
            # Before its base ClientError, which means that there was no connection.
            aiohttp.ServerTimeoutError: on_timeout,
            TimeoutError: on_timeout,
            aiohttp.ClientError: on_unreachable,
            OSError: on_unreachable,
            Exception: on_bug,
        },
    )
    app.router.redirect_slashes = False
    return app


class Gateway:
    """The endpoints."""

    def __init__(self, kube: KubeClient, timeout: timedelta) -> None:
        self._kube = kube
        self._timeout = timeout
        self._reviewer = Reviewer(kube, timeout)

    async def collection(self, request: Request) -> Response:
        return await self._serve(request, COLLECTION, "")

    async def object(self, request: Request) -> Response:
        return await self._serve(request, OBJECT, request.path_params["name"])

    async def healthz(self, request: Request) -> Response:
        return respond(request, 200, {"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        answer = await self._kube.send("GET", "/readyz", timeout=READY_TIMEOUT)
        if answer.code != 200:
            raise StatusError(503, f"The kube-apiserver says it is not ready ({answer.code}).")
        return respond(request, 200, {"status": "ok"})

    async def _serve(self, request: Request, verbs: Mapping[str, str], name: str) -> Response:
        if request.method not in verbs:  # HEAD, which Starlette adds to every GET
            raise HTTPException(405, headers={"Allow": ", ".join(verbs)})
        record: Record = request.state.record
        verb = record.verb = verbs[request.method]
        record.name = name[:MAX_NAME]
        refuse_forged(request.headers, record.request_id)

        who = await self._reviewer.authenticate(bearer_token(request.headers), record)
        record.user, record.tenant = who.user, who.tenant

        if name and not NAME.fullmatch(name):
            raise StatusError(400, f"{name!r} cannot be the name of a VirtualMachine (RFC 1123 subdomain).")
        query = checked_query(request.query_params)
        manifest = await read_manifest(request) if verb in ("create", "update") else None
        if manifest is None:
            await read_no_body(request)
        metadata = metadata_of(manifest)
        record.name = name or str(metadata.get("name", ""))[:MAX_NAME]
        namespace = record.namespace = namespace_of(metadata, query.pop("namespace", None), who.tenant)

        record.reason = await self._reviewer.authorize(who, verb, namespace, name, record)
        record.allowed = True
        answer = await self._kube.send(
            request.method,
            VMS.path(namespace, name or None),
            body=manifest,
            query=query,
            headers={"Impersonate-User": who.user, "Audit-ID": record.request_id},
            timeout=self._timeout,
        )
        if refused_impersonation(answer):
            record.allowed = False
            raise no_tenant(who, answer)
        if answer.code >= 400:
            record.reason = str(answer.body.get("message", ""))
        return relay(request, answer)


def refuse_forged(headers: Headers, request_id: str) -> None:
    for header in headers:
        if header.startswith(("impersonate-", "x-remote-")):
            raise StatusError(400, f"The header {header} is not accepted: the token alone says who is calling.")
    if len(headers.getlist("authorization")) > 1:
        raise StatusError(400, "There is more than one Authorization header.")
    if headers.getlist("x-request-id") not in ([], [request_id]):
        raise StatusError(400, f"X-Request-Id must be there once at most, and match {REQUEST_ID.pattern}")


def bearer_token(headers: Headers) -> str:
    match = BEARER.fullmatch(headers.get("authorization", ""))
    if match is None:
        raise unauthenticated("there is no bearer token in the Authorization header")
    return match[1]


def checked_query(params: QueryParams) -> dict[str, str]:
    query = dict(params)
    if len(query) != len(params.multi_items()):
        raise StatusError(400, "A query parameter is there more than once.")
    if unknown := sorted(query.keys() - PASSED_QUERY - {"namespace"}):
        raise StatusError(400, f"Unknown query parameters {unknown}: namespace, fieldValidation and dryRun are.")
    return query


async def read_body(request: Request, limit: int) -> bytes:
    # Starlette's own limit would answer in plain text.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise StatusError(413, f"The request body is over {limit} bytes.")
    return bytes(body)


async def read_no_body(request: Request) -> None:
    # The preconditions of a DELETE, say, dropped in silence, would delete what the caller meant to keep.
    if await read_body(request, MAX_BODY):
        raise StatusError(400, f"A {request.method} takes no request body here.")


async def read_manifest(request: Request) -> Object:
    content_types = request.headers.getlist("content-type")
    media_type = content_types[0].partition(";")[0].strip().lower() if len(content_types) == 1 else ""
    if media_type not in MEDIA_TYPES or "content-encoding" in request.headers:
        raise StatusError(415, f"Send the manifest as one of {', '.join(MEDIA_TYPES)}, uncompressed.")
    try:
        manifest = decode(await read_body(request, MAX_BODY), media_type)
    except ManifestError as error:
        raise StatusError(400, str(error)) from error
    # Not left to the kube-apiserver: on its way to a mutating webhook it gives the object the kind of the path.
    if (manifest.get("apiVersion"), manifest.get("kind")) != (VMS.api_version, VMS.kind):
        said = f"apiVersion {manifest.get('apiVersion')!r} and kind {manifest.get('kind')!r}"
        raise StatusError(400, f"The manifest has {said}: send a {VMS.kind} of {VMS.api_version}.")
    return manifest


def metadata_of(manifest: Object | None) -> Object:
    metadata = (manifest or {}).get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise StatusError(400, "metadata must be an object.")
    return metadata or {}


def namespace_of(metadata: Object, asked: str | None, tenant: str) -> str:
    """The namespace the caller names, in the query or in the manifest, else the tenant's own."""
    stated = metadata.get("namespace")
    if stated is not None and asked is not None and stated != asked:
        raise StatusError(400, f"metadata.namespace is {stated!r}, but the query says {asked!r}.")
    namespace = stated if stated is not None else asked if asked is not None else tenant
    if not isinstance(namespace, str) or not NAMESPACE.fullmatch(namespace):
        raise StatusError(400, f"{namespace!r} cannot be the name of a namespace (RFC 1123 label).")
    return namespace


def relay(request: Request, answer: Answer) -> Response:
    response = respond(request, answer.code, answer.body)
    # As bytes: a warning may quote a field's name in any script, which Starlette would encode as Latin-1.
    response.raw_headers += [(b"warning", text.encode(errors="surrogateescape")) for text in answer.warnings]
    return response


def respond(request: Request, code: int, body: Object, headers: Mapping[str, str] | None = None) -> Response:
    record: Record = request.state.record
    all_headers = {**(headers or {}), "X-Request-Id": record.request_id}
    return Response(json.dumps(body), code, all_headers, media_type="application/json")


async def on_status_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StatusError)
    record: Record = request.state.record
    record.reason = error.why
    return respond(request, error.code, error.status(record.request_id), error.headers)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = error.status_code if error.status_code in REASONS else 400
    message = f"{request.method} {request.url.path}: {error.detail}."
    return await on_status_error(request, StatusError(code, message, headers=error.headers))


async def on_disconnect(request: Request, error: Exception) -> Response:
    return await on_status_error(request, StatusError(400, "The caller left before the request body was complete."))


async def on_timeout(request: Request, error: Exception) -> Response:
    message = "The kube-apiserver did not answer in time."
    if request.state.record.allowed and request.method != "GET":
        message += " The request may have been carried out all the same: look before repeating it."
    return await on_status_error(request, StatusError(504, message))


async def on_unreachable(request: Request, error: Exception) -> Response:
    message = "The gateway cannot reach the kube-apiserver."
    return await on_status_error(request, StatusError(503, message, why=f"{message[:-1]}: {describe(error)}"))


async def on_bug(request: Request, error: Exception) -> Response:
    message = "The gateway failed at this request; its log has the cause under this request id."
    return await on_status_error(request, StatusError(500, message))


class Recorder:
    """Gives each request its id and its line in the access log. Health checks have no line: nobody asked."""

    def __init__(self, app: ASGIApp, access_log: AccessLog) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope).get("x-request-id", "")
        record = Record(asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex)
        scope.setdefault("state", {})["record"] = record

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.code = message["status"]
            await send(message)

        started = perf_counter()
        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            record.reason = f"bug: {describe(error)}"
            raise
        finally:
            if scope["path"] not in ("/healthz", "/readyz"):
                self._access_log.write(record, timedelta(seconds=perf_counter() - started))
