"""The gateway's HTTP side: from a request to the tenant's own request at the kube-apiserver.

One path for all that is offered: refuse what is forged, TokenReview, read the body, SubjectAccessReview, send it on
as the tenant, give back what was answered. Nobody's body is read before they are authenticated, and once it is there
they are again: it may have taken longer than their token, or the review of it, is good for.

No header of the caller's is ever passed on: the request to the kube-apiserver is made anew, out of what was checked.
What the kube-apiserver answered is not interpreted: its code, body, warnings and Retry-After go back as they came.

Paths and methods that are not offered are refused before anybody is authenticated: /openapi.json tells anybody which
are, so there is nothing to keep.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import ExitStack
from datetime import timedelta

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clusters.gateway.access_log import AccessLog, Record
from clusters.gateway.answers import EXCEPTION_HANDLERS, InPlace, relay, respond
from clusters.gateway.docs import PAGES, page
from clusters.gateway.identity import (
    LATER_TOKEN_REVIEW_SUFFIX,
    Identity,
    Reviewer,
    no_tenant,
    refused_impersonation,
)
from clusters.gateway.limits import REQUEST_LIMIT, TENANT_REQUESTS, Rooms
from clusters.gateway.manifest import JSON
from clusters.gateway.metrics import CONTENT_TYPE, Metrics
from clusters.gateway.offered import ENDPOINTS, Endpoint
from clusters.gateway.openapi import document
from clusters.gateway.readiness import Readiness
from clusters.gateway.recorder import Recorder
from clusters.gateway.requests import Wanted, bearer_token, read
from clusters.gateway.status import StatusError
from clusters.gateway.upstream import Upstream
from virtflow.kube import KubeClient
from virtflow.kube.client import Response as Answer

__all__ = ["create_app"]

Handler = Callable[[Request], Awaitable[Response]]


def create_app(kube: KubeClient, access_log: AccessLog, *, timeout: timedelta = REQUEST_LIMIT) -> Starlette:
    """The ASGI application. `kube` is the gateway's own identity; `timeout` bounds each request as a whole."""
    metrics = Metrics()
    upstream = Upstream(kube, timeout, metrics)
    gateway = Gateway(upstream, Reviewer(upstream, metrics), timeout)
    public = public_routes(upstream, metrics)
    app = Starlette(
        routes=[*(route(each.path, gateway.endpoint(each), each.verbs) for each in ENDPOINTS), *public],
        middleware=[
            Middleware(Recorder, access_log=access_log, metrics=metrics, unrecorded={each.path for each in public})
        ],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    app.router.redirect_slashes = False
    return app


class Gateway:
    """What is done for tenants."""

    def __init__(self, upstream: Upstream, reviewer: Reviewer, limit: timedelta) -> None:
        self._upstream = upstream
        self._reviewer = reviewer
        self._limit = limit
        self._tenants = Rooms(TENANT_REQUESTS, "requests of this tenant's")

    def endpoint(self, endpoint: Endpoint) -> Handler:
        async def serve(request: Request) -> Response:
            async with asyncio.timeout(self._limit.total_seconds()):
                return await self._serve(request, endpoint)

        return serve

    async def _serve(self, request: Request, endpoint: Endpoint) -> Response:
        record: Record = request.state.record
        record.verb = endpoint.verbs[request.method]
        record.resource, record.subresource = endpoint.resource.plural, endpoint.subresource

        token = bearer_token(request)
        who = await self._reviewer.authenticate(token, record)
        record.user, record.tenant = who.user, who.tenant
        with ExitStack() as place:
            place.enter_context(self._tenants.place(who.tenant))
            wanted = await read(request, endpoint, who.tenant)
            who = await self._reviewer.authenticate(token, record, LATER_TOKEN_REVIEW_SUFFIX)
            answer = await self._carry_out(request, endpoint, who, wanted, record)
            return InPlace(answer, place.pop_all())

    async def _carry_out(
        self, request: Request, endpoint: Endpoint, who: Identity, wanted: Wanted, record: Record
    ) -> Response:
        record.reason = await self._reviewer.authorize(who, wanted.access, record)
        record.allowed = True

        answer = await self._forward(request.method, who, wanted, record)
        if answer.code >= 400:
            # A Secret's or a pod's refusal may quote it.
            record.reason = str(answer.body.get("reason" if endpoint.confidential else "message", ""))
        return relay(answer)

    async def _forward(self, method: str, who: Identity, wanted: Wanted, record: Record) -> Answer:
        answer = await self._upstream.send(
            "request",
            method,
            wanted.access.path,
            body=wanted.body,
            query=wanted.query,
            headers={"Impersonate-User": who.user, "Audit-ID": record.request_id},
        )
        if refused_impersonation(answer):
            record.allowed = False
            raise no_tenant(who, answer)
        return answer


def public_routes(upstream: Upstream, metrics: Metrics) -> list[Route]:
    """For anybody, without a token."""

    async def healthz(_: Request) -> Response:
        return respond(200, {"status": "ok"})

    readiness = Readiness(upstream)

    async def readyz(_: Request) -> Response:
        try:
            code = await readiness.code()
        except TimeoutError:
            raise StatusError(504, "The kube-apiserver did not say in time whether it is ready.") from None
        if code != 200:
            raise StatusError(503, f"The kube-apiserver says it is not ready ({code}).")
        return respond(200, {"status": "ok"})

    async def figures(_: Request) -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE)

    async def openapi(_: Request) -> Response:
        return Response(document(), media_type=JSON)

    async def docs(request: Request) -> Response:
        return page(request.url.path)

    return [
        route("/healthz", healthz, ["GET"]),
        route("/readyz", readyz, ["GET"]),
        route("/metrics", figures, ["GET"]),
        route("/openapi.json", openapi, ["GET"]),
        *(route(path, docs, ["GET"], described=path == "/docs") for path in PAGES),
    ]


def route(path: str, handler: Handler, methods: Collection[str], *, described: bool = True) -> Route:
    made = Route(path, handler, methods=[*methods], include_in_schema=described)
    # Without the HEAD that Starlette adds to every GET: what it would ask of RBAC is a whole list, for no answer.
    made.methods = {*methods}
    return made
