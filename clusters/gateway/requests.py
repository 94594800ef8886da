"""From what a caller sent to what they mean by it: one meaning, or a refusal that says why there is none.

Two steps, because nobody's body is read before they are authenticated: `bearer_token` refuses what is forged and
finds the token, `read` does the rest.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request

from clusters.gateway.access import Access
from clusters.gateway.access_log import Record
from clusters.gateway.identity import unauthenticated
from clusters.gateway.limits import BODY_LIMIT, Turns, too_many
from clusters.gateway.manifest import JSON, MEDIA_TYPES, ManifestError, decode
from clusters.gateway.offered import Endpoint
from clusters.gateway.status import REASONS, StatusError
from virtflow.kube import Object

__all__ = [
    "MAX_BODY",
    "MAX_NAME",
    "NAME",
    "NAMESPACE",
    "QUERY",
    "REQUEST_ID",
    "Wanted",
    "bearer_token",
    "read",
    "takes_query",
]

MAX_BODY = 1024 * 1024
"""Bytes. etcd refuses objects over 1.5 MiB anyway."""

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,47}")
VERSION = re.compile(r"[0-9]{1,20}")
BEARER = re.compile(r"Bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
SMALL_BODY = 8 * 1024
"""Bytes that are read at once, which takes some ten milliseconds at most."""
LARGE_BODIES = Turns()
"""By tenant."""
MAX_NAME = 253
# Names go into the kube-apiserver's path, where ".." would be another path.
NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

QUERY: Mapping[str, tuple[str, ...]] = {
    "namespace": (),
    "allNamespaces": ("true",),
    "dryRun": ("All",),
    "fieldValidation": ("Ignore", "Warn", "Strict"),
}
"""Query parameters, and the values that those with a choice may have."""


@dataclass(frozen=True)
class Wanted:
    """A request that has a meaning. `query` is what the kube-apiserver is to be told of it."""

    access: Access
    query: dict[str, str]
    body: Object | None


def bearer_token(request: Request) -> str:
    """Raises StatusError 400 for who tries to be somebody by other means, 401 where there is no token."""
    record: Record = request.state.record
    headers = request.headers
    for header in headers:
        if header.startswith(("impersonate-", "x-remote-")):
            raise StatusError(400, f"The header {header} is not accepted: the token alone says who is calling.")
    if len(headers.getlist("authorization")) > 1:
        raise StatusError(400, "There is more than one Authorization header.")
    if headers.getlist("x-request-id") not in ([], [record.request_id]):
        raise StatusError(400, f"X-Request-Id must be there once at most, and match {REQUEST_ID.pattern}")
    # Decoded it would be a further segment: another path than the one that a proxy before the gateway has seen.
    if b"%2f" in (request.scope.get("raw_path") or b"").lower():
        raise StatusError(400, "The path has an encoded slash.")
    match = BEARER.fullmatch(headers.get("authorization", ""))
    if match is None:
        raise unauthenticated("there is no bearer token in the Authorization header")
    return match[1]


async def read(request: Request, endpoint: Endpoint, tenant: str) -> Wanted:
    """Read the rest of the request, noting in its record what is known.

    Raises StatusError 400, 408, 413, 415 or 429.
    """
    try:
        return await _read(request, endpoint, tenant)
    except StatusError as refusal:
        if endpoint.confidential:
            refusal.why = f"{REASONS[refusal.code]}. No more is noted, lest it quote a {endpoint.resource.kind}."
        raise


async def _read(request: Request, endpoint: Endpoint, tenant: str) -> Wanted:
    record: Record = request.state.record
    verb = endpoint.verbs[request.method]
    name = request.path_params.get("name", "")
    record.name = name[:MAX_NAME]
    if name and not (len(name) <= MAX_NAME and NAME.fullmatch(name)):
        raise StatusError(400, f"{name!r} cannot be the name of a {endpoint.resource.kind} (RFC 1123 subdomain).")
    query = checked_query(request.query_params, endpoint, verb)
    body, metadata = await read_body(request, endpoint, verb)
    stated = metadata.get("name")
    record.name = name or (stated[:MAX_NAME] if isinstance(stated, str) else "")
    asked, everywhere = query.pop("namespace", None), query.pop("allNamespaces", None)
    if everywhere and asked is not None:
        raise StatusError(400, "The query says namespace and allNamespaces: one of them alone has a meaning.")
    record.namespace = namespace = "" if everywhere else namespace_of(metadata, asked, tenant)
    return Wanted(Access(verb, endpoint.resource, namespace, name, endpoint.subresource), query, body)


def takes_query(endpoint: Endpoint, verb: str) -> list[str]:
    """The parameters that mean something there. Any other would be dropped by the server without a word."""
    # An action's dry run is in its options: KubeVirt does not look at the query.
    if endpoint.subresource:
        return ["namespace"]
    taken = {
        "list": ["namespace", "allNamespaces"],
        "create": ["namespace", "dryRun", "fieldValidation"],
        "get": ["namespace"],
        "update": ["namespace", "dryRun", "fieldValidation"],
        "delete": ["namespace", "dryRun"],
    }
    return taken[verb]


def checked_query(params: QueryParams, endpoint: Endpoint, verb: str) -> dict[str, str]:
    query = dict(params)
    if len(query) != len(params.multi_items()):
        raise StatusError(400, "A query parameter is there more than once.")
    known = takes_query(endpoint, verb)
    if unknown := sorted(query.keys() - set(known)):
        raise StatusError(400, f"Unknown query parameters {unknown}: this request may have {', '.join(known)}.")
    for name, value in query.items():
        if QUERY[name] and value not in QUERY[name]:
            raise StatusError(400, f"The query parameter {name} is {value!r}: it may be {' or '.join(QUERY[name])}.")
    return query


async def read_body(request: Request, endpoint: Endpoint, verb: str) -> tuple[Object | None, Object]:
    """The body that is to be sent on, and a manifest's metadata."""
    if endpoint.subresource:
        return await read_options(request), {}
    if verb in ("create", "update"):
        manifest = await read_manifest(request, endpoint)
        metadata = metadata_of(manifest)
        check_version(metadata.get("resourceVersion"), verb)
        return manifest, metadata
    # The preconditions of a DELETE, say, dropped in silence, would delete what the caller meant to keep.
    if await read_bytes(request):
        raise StatusError(400, f"A {request.method} takes no request body here.")
    return None, {}


def check_version(version: object, verb: str) -> None:
    """The kube-apiserver calls either of these an error of its own (500)."""
    if version and verb == "create":
        raise StatusError(400, "metadata.resourceVersion must not be set on an object that is to be created.")
    if isinstance(version, str) and version and not (VERSION.fullmatch(version) and int(version) < 2**64):
        raise StatusError(400, f"metadata.resourceVersion is {version[:MAX_NAME]!r}, which no object has.")


async def read_bytes(request: Request) -> bytes:
    # Starlette's own limit would answer in plain text.
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_LIMIT.total_seconds()):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise StatusError(413, f"The request body is over {MAX_BODY} bytes.")
    except TimeoutError:
        raise StatusError(408, "The request body was not complete in time.") from None
    return bytes(body)


async def read_manifest(request: Request, endpoint: Endpoint) -> Object:
    media_type = media_type_of(request.headers)
    if media_type not in MEDIA_TYPES:
        raise StatusError(415, f"Send the manifest as one of {', '.join(MEDIA_TYPES)}, uncompressed.")
    manifest = await decoded(request, await read_bytes(request), media_type)
    resource = endpoint.resource
    # Not left to the kube-apiserver: on its way to a mutating webhook it gives the object the kind of the path.
    if (manifest.get("apiVersion"), manifest.get("kind")) != (resource.api_version, resource.kind):
        said = f"apiVersion {manifest.get('apiVersion')!r} and kind {manifest.get('kind')!r}"
        raise StatusError(400, f"The manifest has {said}: send a {resource.kind} of {resource.api_version}.")
    return manifest


async def read_options(request: Request) -> Object | None:
    """An action's options, which are JSON; None if there are none."""
    body = await read_bytes(request)
    if not body:
        return None
    if media_type_of(request.headers) != JSON:
        raise StatusError(415, f"Send the options as {JSON}, uncompressed, or none at all.")
    return await decoded(request, body, JSON)


def media_type_of(headers: Headers) -> str:
    """Empty where it is not stated once, or does not say what the body's bytes are."""
    content_types = headers.getlist("content-type")
    if len(content_types) != 1 or "content-encoding" in headers:
        return ""
    return content_types[0].partition(";")[0].strip().lower()


async def decoded(request: Request, body: bytes, media_type: str) -> Object:
    try:
        if len(body) <= SMALL_BODY:
            return decode(body, media_type)
        return await decoded_beside(LARGE_BODIES.of(request.state.record.tenant), body, media_type)
    except ManifestError as error:
        raise StatusError(400, str(error)) from error


async def decoded_beside(turn: asyncio.Lock, body: bytes, media_type: str) -> Object:
    """Decoded in a thread, which keeps the turn to its end: it goes on when the request is given up."""
    try:
        async with asyncio.timeout(BODY_LIMIT.total_seconds()):
            await turn.acquire()
    except TimeoutError:
        raise too_many("Another large body of this tenant's is being read.") from None
    work = asyncio.get_running_loop().run_in_executor(None, decode, body, media_type)
    work.add_done_callback(lambda _: turn.release())
    return await asyncio.shield(work)


def metadata_of(manifest: Object) -> Object:
    metadata = manifest.get("metadata")
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
