"""What the gateway says of itself at /openapi.json, made of the table that its routes are made of.

OpenAPI 3.0, not 3.1: KubeVirt's schemas are written in it, and the Swagger UI that PyPI has reads no other. What a
VirtualMachine may be is taken from KubeVirt's CustomResourceDefinitions, by which the kube-apiserver checks it. Of
Kubernetes' own kinds the main fields are here: their schemas are the kube-apiserver's, which checks by them.
"""

import json
from functools import cache

from clusters.gateway.manifest import JSON, MEDIA_TYPES
from clusters.gateway.offered import ENDPOINTS, RESOURCES, Endpoint
from clusters.gateway.requests import MAX_NAME, NAME, NAMESPACE, QUERY, REQUEST_ID, takes_query
from clusters.gateway.schemas import (
    ACTION_OPTIONS,
    LIST,
    OBJECT_META,
    READY,
    STATUS,
    SUCCESS,
    answered_schema,
    sent_schema,
)
from clusters.gateway.status import REASONS
from virtflow.kube import Object

__all__ = ["document", "openapi"]

FROM_THE_APISERVER = {409: "Conflict", 422: "Invalid"}
REFUSALS = {code: reason for code, reason in {**REASONS, **FROM_THE_APISERVER}.items() if code != 405}
"""Codes, and their `reason` in Kubernetes: the gateway's own, but for what no operation in here has, and those that
only the kube-apiserver says."""
NEVER: dict[str, set[int]] = {"list": {409, 415, 422}, "get": {409, 415, 422}, "delete": {415}}

SUMMARIES = {
    "list": "The {kind}s of a namespace, or of the whole cluster.",
    "create": "Make a {kind}.",
    "get": "One {kind}.",
    "update": "Put a changed {kind} in the place of the one that is there.",
    "delete": "Ask for the end of a {kind}.",
    "start": "Start a {kind}.",
    "stop": "Stop a {kind}.",
    "restart": "Stop a {kind} and start it again.",
}
QUERY_TEXTS = {
    "namespace": "Whose: the caller's own, if neither this nor the manifest says.",
    "allNamespaces": "Those of the whole cluster, for whom RBAC lets see them. It excludes `namespace`.",
    "dryRun": "Do all of it but store it.",
    "fieldValidation": "What is to happen to a field that the kind does not have.",
}
PUBLIC = {
    "/healthz": ("health", "Whether the gateway runs.", "application/json", READY),
    "/readyz": ("readiness", "Whether the gateway takes requests and the kube-apiserver answers it.", JSON, READY),
    "/metrics": ("metrics", "The gateway's figures for Prometheus.", "text/plain", {"type": "string"}),
    "/openapi.json": ("openapi", "This document.", JSON, {"type": "object"}),
    "/docs": ("docs", "This document, for people.", "text/html", {"type": "string"}),
}


@cache
def document() -> bytes:
    """As it is served: made once, because it is long and anybody may ask for it."""
    return json.dumps(openapi()).encode()


def openapi() -> Object:
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "IAM gateway",
            "version": "1",
            "description": "Virtual machines, and what belongs to them, for tenants. The bearer token says who is "
            "calling; Kubernetes' RBAC says what they may do.",
        },
        "tags": [*({"name": resource.plural} for resource in RESOURCES), {"name": "gateway"}],
        "security": [{"token": []}],
        "paths": {
            **{endpoint.path: _path(endpoint) for endpoint in ENDPOINTS},
            **{path: {"get": _public_operation(path)} for path in PUBLIC},
        },
        "components": {
            "securitySchemes": {"token": TOKEN},
            "parameters": {**PARAMETERS, **{name: _query_parameter(name) for name in QUERY}},
            "headers": HEADERS,
            "responses": {str(code): _refusal(code, reason) for code, reason in sorted(REFUSALS.items())},
            "schemas": {
                **{resource.kind: sent_schema(resource) for resource in RESOURCES},
                **{f"{resource.kind}Answer": answered_schema(resource) for resource in RESOURCES},
                "ObjectMeta": OBJECT_META,
                "List": LIST,
                "Status": STATUS,
                "Success": SUCCESS,
            },
        },
    }


def _path(endpoint: Endpoint) -> Object:
    operations = {method.lower(): _operation(endpoint, verb) for method, verb in endpoint.verbs.items()}
    named = ["name", "X-Request-Id"] if "{name}" in endpoint.path else ["X-Request-Id"]
    return {"parameters": [_ref("parameters", name) for name in named], **operations}


def _operation(endpoint: Endpoint, verb: str) -> Object:
    action, kind = endpoint.subresource or verb, endpoint.resource.kind
    refusals = sorted(REFUSALS.keys() - NEVER.get(verb, set()))
    operation: Object = {
        "operationId": f"{action}{kind}",
        "summary": SUMMARIES[action].format(kind=kind),
        "tags": [endpoint.resource.plural],
        "parameters": [_ref("parameters", name) for name in takes_query(endpoint, verb)],
        "responses": {**_successes(endpoint, verb), **{str(code): _ref("responses", str(code)) for code in refusals}},
    }
    if endpoint.subresource:
        operation["requestBody"] = {"content": {JSON: {"schema": ACTION_OPTIONS[action]}}}
    elif verb in ("create", "update"):
        content = {media_type: {"schema": _ref("schemas", kind)} for media_type in MEDIA_TYPES}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _successes(endpoint: Endpoint, verb: str) -> Object:
    if endpoint.subresource:
        return {"202": _answer("It is under way.", {"type": "object"})}
    answered = _ref("schemas", f"{endpoint.resource.kind}Answer")
    gone = {"anyOf": [answered, _ref("schemas", "Success")]}
    successes: dict[str, Object] = {
        "list": {"200": _answer("All of them.", _ref("schemas", "List"))},
        "create": {"201": _answer("It was made.", answered)},
        "get": {"200": _answer("As it is.", answered)},
        "update": {"200": _answer("As it is now.", answered)},
        "delete": {"200": _answer("It is gone, or will be.", gone), "202": _answer("It will be gone.", gone)},
    }
    return successes[verb]


def _public_operation(path: str) -> Object:
    name, summary, media_type, schema = PUBLIC[path]
    refusals = {str(code): _ref("responses", str(code)) for code in (503, 504)} if path == "/readyz" else {}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["gateway"],
        "security": [],
        "responses": {"200": _answer("It is so.", schema, media_type), **refusals},
    }


def _answer(text: str, schema: Object, media_type: str = JSON) -> Object:
    headers = {"X-Request-Id": _ref("headers", "X-Request-Id")}
    return {"description": text, "headers": headers, "content": {media_type: {"schema": schema}}}


def _refusal(code: int, reason: str) -> Object:
    refusal = _answer(REFUSAL_TEXTS.get(code, f"{reason}."), _ref("schemas", "Status"))
    for header in REFUSAL_HEADERS.get(code, ()):
        refusal["headers"][header] = _ref("headers", header)
    return refusal


def _query_parameter(name: str) -> Object:
    schema: Object = {"type": "string"}
    if QUERY[name]:
        schema["enum"] = [*QUERY[name]]
    if name == "namespace":
        schema["pattern"] = f"^{NAMESPACE.pattern}$"
    return {"name": name, "in": "query", "description": QUERY_TEXTS[name], "schema": schema}


def _ref(section: str, name: str) -> Object:
    return {"$ref": f"#/components/{section}/{name}"}


TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A service account's token, from the TokenRequest API, made for this gateway's audience.",
}
PARAMETERS: Object = {
    "name": {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": f"^{NAME.pattern}$", "maxLength": MAX_NAME},
    },
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Names the request in every log. One is made up where there is none.",
        "schema": {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"},
    },
}
HEADERS: Object = {
    "X-Request-Id": {
        "description": "The request's name in every log.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds, where it is known when to come again.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {
        "description": "How to say who is calling.",
        "required": True,
        "schema": {"type": "string"},
    },
}
REFUSAL_HEADERS = {401: ["WWW-Authenticate"], **{code: ["Retry-After"] for code in (429, 500, 503, 504)}}
REFUSAL_TEXTS = {
    400: "The request has no meaning, or more than one.",
    401: "The token says nobody, or is not for the gateway.",
    403: "RBAC, the tenant's quota or an admission webhook says no.",
    404: "There is none of that name.",
    408: "The request did not come to its end in time.",
    409: "It is there already, or somebody else wrote it since.",
    413: "The body is too long.",
    415: "The body is in no format that is read here.",
    422: "The object is not valid.",
    429: "The caller has too many requests under way.",
    431: "The headers are too long.",
    500: "The gateway, or the kube-apiserver, failed.",
    503: "The gateway may not ask the kube-apiserver, cannot reach it, or lost its answer: a write may be done.",
    504: "The request was not checked in time, or the kube-apiserver did not answer in time: a write may be done.",
}
