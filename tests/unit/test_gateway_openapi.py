"""The OpenAPI document against what it speaks of: the routes, and what they answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route

from clusters.gateway.offered import ENDPOINTS
from clusters.gateway.openapi import openapi
from clusters.kubevirt.crds import schema
from tests.unit.gateway_support import AUTH, VM, Setup
from virtflow.kube import Object

pytestmark = pytest.mark.anyio

JSON = "application/json"
METHODS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}


def operations() -> Iterator[tuple[str, str, Object]]:
    for path, item in openapi()["paths"].items():
        for method in item.keys() & METHODS:
            yield path, method.upper(), item[method]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def resolved(reference: str) -> Any:
    node: Any = openapi()
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


async def test_every_route_is_in_it_and_nothing_without_a_route(gateway: Setup) -> None:
    served = {
        (route.path, method)
        for route in gateway.app.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in route.methods or ()
    }
    assert {(path, method) for path, method, _ in operations()} == served


async def test_it_is_served_to_anybody_as_it_is(gateway: Setup) -> None:
    response = await gateway.http.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, JSON)
    assert response.json() == openapi()


def test_each_operation_has_a_name_of_its_own_and_one_sentence() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    for _, _, operation in operations():
        assert operation["summary"].endswith(".")
        assert operation["summary"].count(". ") == 0


def test_what_it_refers_to_is_there_and_what_is_there_is_referred_to() -> None:
    used = set(references(openapi()))
    assert all(resolved(reference) for reference in used)
    there = {
        f"#/components/{section}/{name}"
        for section, parts in openapi()["components"].items()
        for name in parts
        if section != "securitySchemes"
    }
    assert there - used == set()


def test_every_answer_has_its_request_id_and_each_refusal_is_a_status() -> None:
    for path, method, operation in operations():
        for code, answer in operation["responses"].items():
            found = resolved(answer["$ref"]) if "$ref" in answer else answer
            assert "X-Request-Id" in found["headers"], (path, method, code)
            if int(code) >= 400:
                assert found["content"] == {JSON: {"schema": {"$ref": "#/components/schemas/Status"}}}
    assert "Retry-After" in resolved("#/components/responses/429")["headers"]
    assert "WWW-Authenticate" in resolved("#/components/responses/401")["headers"]


def test_all_but_the_gateways_own_pages_take_a_token() -> None:
    assert openapi()["security"] == [{"token": []}]
    public = {path for path, _, operation in operations() if operation.get("security") == []}
    assert public == {path for path, _, _ in operations()} - {endpoint.path for endpoint in ENDPOINTS}


def test_a_machine_is_described_as_kubevirt_does() -> None:
    described = openapi()["components"]["schemas"]["VirtualMachine"]
    assert described["properties"]["spec"] == schema("VirtualMachine")["properties"]["spec"]
    assert described["required"] == ["apiVersion", "kind", "metadata", "spec"]
    assert described["properties"]["kind"]["enum"] == ["VirtualMachine"]


LIST: Object = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineList", "items": []}
ASKED: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/virtualmachines", {"answer": LIST}, 200),
    ("GET", "/virtualmachines", {"code": 503}, 503),
    ("GET", "/virtualmachines", {"headers": {}}, 401),
    ("GET", "/virtualmachines?namespace=tenant-b", {}, 403),
    ("GET", "/virtualmachines?namespace=-", {}, 400),
    ("POST", "/virtualmachines", {"json": VM, "code": 201}, 201),
    ("POST", "/virtualmachines", {"json": VM, "code": 409}, 409),
    ("POST", "/virtualmachines", {"json": VM, "code": 422}, 422),
    ("POST", "/virtualmachines", {"json": VM, "code": 429}, 429),
    ("POST", "/virtualmachines", {"content": b" " * 2_000_000, "headers": {**AUTH, "Content-Type": JSON}}, 413),
    ("POST", "/virtualmachines", {"content": b"{}"}, 415),
    ("PUT", "/virtualmachines/{name}", {"json": VM}, 200),
    ("GET", "/virtualmachines/{name}", {"code": 404}, 404),
    ("DELETE", "/virtualmachines/{name}", {}, 403),
    ("PUT", "/virtualmachines/{name}/start", {"code": 202}, 202),
    ("PUT", "/virtualmachines/{name}/stop", {"json": []}, 400),
    ("GET", "/healthz", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/readyz", {"code": 500}, 503),
    ("GET", "/metrics", {}, 200),
    ("GET", "/docs", {}, 200),
]


@pytest.mark.parametrize(("method", "path", "request_", "code"), ASKED)
async def test_what_is_answered_is_what_it_says(
    gateway: Setup, method: str, path: str, request_: dict[str, Any], code: int
) -> None:
    gateway.fake.code = request_.get("code", 200)
    refusal = {"kind": "Status", "code": gateway.fake.code, "message": "as the test wants"}
    gateway.fake.answer = refusal if gateway.fake.code >= 400 else request_.get("answer", VM)
    url = path.replace("{name}", "test-vm")
    sent = {name: value for name, value in request_.items() if name not in ("code", "answer")}
    response = await gateway.http.request(method, url, **{"headers": AUTH, **sent})
    assert response.status_code == code, response.text
    said = openapi()["paths"][path.partition("?")[0]][method.lower()]["responses"][str(code)]
    answer = resolved(said["$ref"]) if "$ref" in said else said
    (media_type,) = answer["content"]
    assert response.headers["content-type"].startswith(media_type)
    required = {
        name.lower() for name, header in answer["headers"].items() if resolved(header["$ref"]).get("required")
    }
    assert "x-request-id" in required <= response.headers.keys()
    assert is_as(json.loads(response.text) if media_type == JSON else response.text, answer["content"][media_type])


def is_as(value: Any, content: Object) -> bool:
    """Whether a Status, or the kind of an object, is what the schema says; of a text nothing is said."""
    described = content["schema"]
    described = resolved(described["$ref"]) if "$ref" in described else described
    if described["type"] == "string":
        return isinstance(value, str)
    for name, field in described.get("properties", {}).items():
        if name in value and "enum" in field:
            assert value[name] in field["enum"], name
    return isinstance(value, dict) and value.keys() >= set(described.get("required", ()))


def test_the_document_is_short_enough_to_be_read_at_once() -> None:
    assert len(json.dumps(openapi())) < 256 * 1024
