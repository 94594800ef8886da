"""The gateway between a caller and a kube-apiserver that is played, at its HTTP border, by a small server.

What only a real kube-apiserver can show (RBAC, impersonation, audit) is in tests/integration/test_gateway.py.
"""

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusters.gateway import ACCESS_REVIEW_SUFFIX, TENANT_ROLE, TOKEN_REVIEW_SUFFIX, manifests, tenant_binding
from clusters.gateway.requests import MAX_BODY
from tests.unit.gateway_support import AUTH, REVIEWS, TENANT, VM, Setup, is_status
from virtflow.kube import Object
from virtflow.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES

pytestmark = pytest.mark.anyio

BASE = "/apis/kubevirt.io/v1/namespaces/tenant-a/virtualmachines"
JSON = {"Content-Type": "application/json"}


async def test_a_create_is_reviewed_twice_and_then_sent_as_the_tenant(gateway: Setup) -> None:
    gateway.fake.code = 201
    url = "/virtualmachines?fieldValidation=Strict&dryRun=All"
    response = await gateway.http.post(url, json=VM, headers={**AUTH, "X-Request-Id": "run-1.step-2"})

    assert (response.status_code, response.json()) == (201, VM)
    assert response.headers["x-request-id"] == "run-1.step-2"
    assert [request.path for request in gateway.fake.requests] == [*REVIEWS, BASE]
    token_review, access_review, create = gateway.fake.requests
    assert token_review.headers["Audit-ID"] == "run-1.step-2" + TOKEN_REVIEW_SUFFIX
    assert access_review.headers["Audit-ID"] == "run-1.step-2" + ACCESS_REVIEW_SUFFIX
    assert create.headers["Audit-ID"] == "run-1.step-2"
    assert create.headers["Impersonate-User"] == TENANT
    assert create.headers["Authorization"] == "Bearer the-gateways-own"
    assert dict(create.query) == {"fieldValidation": "Strict", "dryRun": "All"}
    assert gateway.fake.bodies[1]["spec"] == {
        "user": TENANT,
        "uid": "u1",
        "groups": ["g1"],
        "extra": {"e": ["x"]},
        "resourceAttributes": {
            "namespace": "tenant-a",
            "verb": "create",
            "group": "kubevirt.io",
            "version": "v1",
            "resource": "virtualmachines",
            "subresource": "",
            "name": "",
        },
    }
    assert gateway.fake.bodies[2] == VM


@pytest.mark.parametrize(
    ("method", "path", "verb", "upstream"),
    [
        ("GET", "/virtualmachines", "list", BASE),
        ("GET", "/virtualmachines/test-vm", "get", f"{BASE}/test-vm"),
        ("PUT", "/virtualmachines/test-vm", "update", f"{BASE}/test-vm"),
    ],
)
async def test_each_method_has_its_verb_and_path(
    gateway: Setup, method: str, path: str, verb: str, upstream: str
) -> None:
    response = await gateway.http.request(method, path, headers=AUTH, json=VM if method == "PUT" else None)
    assert response.status_code == 200
    assert gateway.fake.bodies[1]["spec"]["resourceAttributes"]["verb"] == verb
    assert (gateway.fake.requests[2].method, gateway.fake.requests[2].path) == (method, upstream)


async def test_yaml_is_sent_on_as_json(gateway: Setup) -> None:
    headers = {**AUTH, "Content-Type": "application/yaml; charset=utf-8"}
    response = await gateway.http.post("/virtualmachines", content=yaml.safe_dump(VM), headers=headers)
    assert response.status_code == 200
    assert gateway.fake.bodies[2] == VM


async def test_the_servers_refusal_and_warnings_come_back_unchanged(gateway: Setup) -> None:
    gateway.fake.code, gateway.fake.answer = 422, {"kind": "Status", "code": 422, "message": "spec.é"}
    gateway.fake.warnings = ['299 - "unknown field \\"spec.é\\""', '299 - "and another"']
    response = await gateway.http.post("/virtualmachines", json=VM, headers=AUTH)
    assert (response.status_code, response.json()) == (422, gateway.fake.answer)
    raw = [value.decode() for name, value in response.headers.raw if name == b"warning"]
    assert raw == gateway.fake.warnings
    assert gateway.lines()[0]["verdict"] == "allowed"
    assert gateway.lines()[0]["reason"] == "spec.é"


@pytest.mark.parametrize("header", ["Impersonate-User", "impersonate-group", "Impersonate-Extra-x", "X-Remote-User"])
async def test_forged_identities_are_refused_before_anything_is_asked(gateway: Setup, header: str) -> None:
    response = await gateway.http.get("/virtualmachines", headers={**AUTH, header: "system:admin"})
    assert is_status(response, 400, "BadRequest")
    assert header.lower() in response.json()["message"]
    assert not gateway.fake.requests


@pytest.mark.parametrize(("version", "code"), [("x", 400), ("-1", 400), (str(2**64), 400), ("12", 200), ("", 200)])
async def test_a_version_that_no_object_has_is_400(gateway: Setup, version: str, code: int) -> None:
    vm = {**VM, "metadata": {"name": "test-vm", "resourceVersion": version}}
    assert (await gateway.http.put("/virtualmachines/test-vm", json=vm, headers=AUTH)).status_code == code


async def test_two_authorization_headers_are_refused(gateway: Setup) -> None:
    twice = [("Authorization", "Bearer good"), ("Authorization", "Bearer human")]
    assert is_status(await gateway.http.get("/virtualmachines", headers=twice), 400, "BadRequest")
    assert not gateway.fake.requests


@pytest.mark.parametrize("value", ["short", "a" * 49, "-starts-badly", "has space in it", "ünïcödé-id"])
async def test_a_request_id_out_of_pattern_is_refused(gateway: Setup, value: str) -> None:
    headers = {**AUTH, "X-Request-Id": value.encode().decode("latin-1")}
    response = await gateway.http.get("/virtualmachines", headers=httpx.Headers(headers, encoding="latin-1"))
    assert is_status(response, 400, "BadRequest")
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize("value", [None, "", "good", "Basic good", "Bearer", "Bearer g ood", "Bearer unknown"])
async def test_without_a_good_token_it_is_401(gateway: Setup, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    response = await gateway.http.get("/virtualmachines", headers=headers)
    assert is_status(response, 401, "Unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert gateway.lines()[0]["verdict"] == "unauthenticated"
    assert BASE not in [request.path for request in gateway.fake.requests]


async def test_a_review_that_ignores_audiences_is_not_believed(gateway: Setup) -> None:
    gateway.fake.audiences = []
    assert is_status(await gateway.http.get("/virtualmachines", headers=AUTH), 401, "Unauthorized")


async def test_a_user_who_is_no_service_account_has_no_tenant(gateway: Setup) -> None:
    response = await gateway.http.get("/virtualmachines", headers={"Authorization": "Bearer human"})
    assert is_status(response, 403, "Forbidden")
    assert "jane" in response.json()["message"]


async def test_a_denied_verb_is_refused_in_kubernetes_words(gateway: Setup) -> None:
    response = await gateway.http.delete("/virtualmachines/test-vm", headers=AUTH)
    assert is_status(response, 403, "Forbidden")
    assert response.json()["message"] == (
        f'virtualmachines.kubevirt.io "test-vm" is forbidden: User "{TENANT}" cannot delete resource '
        '"virtualmachines" in API group "kubevirt.io" in the namespace "tenant-a": RBAC: as the test wants'
    )
    assert response.json()["details"].items() >= {"name": "test-vm", "group": "kubevirt.io"}.items()
    assert [request.path for request in gateway.fake.requests] == [*REVIEWS]


@pytest.mark.parametrize(
    ("query", "metadata", "namespace"),
    [("?namespace=tenant-b", {}, "tenant-b"), ("", {"namespace": "tenant-b"}, "tenant-b")],
)
async def test_another_namespace_is_asked_of_rbac(
    gateway: Setup, query: str, metadata: Object, namespace: str
) -> None:
    vm = {**VM, "metadata": {"name": "test-vm", **metadata}}
    response = await gateway.http.post(f"/virtualmachines{query}", json=vm, headers=AUTH)
    assert is_status(response, 403, "Forbidden")
    assert f'in the namespace "{namespace}"' in response.json()["message"]
    assert gateway.lines()[0].items() >= {"namespace": namespace, "tenant": "tenant-a", "verdict": "denied"}.items()


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("?namespace=tenant-a", {"metadata": {"namespace": "tenant-b"}}),
        ("?namespace=tenant-a&namespace=tenant-a", {}),
        ("?namespace=", {}),
        ("?namespace=../../nodes", {}),
        ("?watch=true", {}),
        ("", {"metadata": {"namespace": 1}}),
        ("", {"metadata": {"namespace": ""}}),
        ("", {"metadata": {"namespace": "\ud800"}}),
        ("", {"metadata": []}),
        ("", []),
        # To the kube-apiserver it is an error of its own.
        ("", {**VM, "metadata": {"name": "test-vm", "resourceVersion": "1"}}),
    ],
)
async def test_what_has_no_one_meaning_is_400(gateway: Setup, query: str, body: object) -> None:
    headers = {**AUTH, **JSON}
    response = await gateway.http.post(f"/virtualmachines{query}", content=json.dumps(body), headers=headers)
    assert is_status(response, 400, "BadRequest")
    assert [request.path for request in gateway.fake.requests] == [REVIEWS[0]]


@pytest.mark.parametrize("name", ["..", "A", "a_b", "a" * 254, "-a", "é", "a\n"])
async def test_a_name_that_is_none_is_400(gateway: Setup, name: str) -> None:
    path = "/virtualmachines/" + quote(name, safe="").replace("..", "%2e%2e")
    assert is_status(await gateway.http.get(path, headers=AUTH), 400, "BadRequest")
    assert [request.path for request in gateway.fake.requests] == [REVIEWS[0]]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Content-Type": "text/plain"}, {**JSON, "Content-Encoding": "gzip"}, [*JSON.items(), *JSON.items()]],
)
async def test_other_media_types_are_415(gateway: Setup, headers: dict[str, str] | list[tuple[str, str]]) -> None:
    all_headers = [*AUTH.items(), *(headers.items() if isinstance(headers, dict) else headers)]
    response = await gateway.http.post("/virtualmachines", content=b"{}", headers=all_headers)
    assert is_status(response, 415, "UnsupportedMediaType")


async def test_a_body_too_long_is_not_read_to_its_end(gateway: Setup) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b" " * 65536

    response = await gateway.http.post("/virtualmachines", content=endless(), headers={**AUTH, **JSON})
    assert is_status(response, 413, "RequestEntityTooLarge")
    assert sent <= MAX_BODY + 2 * 65536


async def test_a_body_that_would_be_dropped_is_refused(gateway: Setup) -> None:
    response = await gateway.http.request("DELETE", "/virtualmachines/test-vm", headers=AUTH, json={"a": 1})
    assert is_status(response, 400, "BadRequest")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PATCH", "/virtualmachines/test-vm", {"GET", "PUT", "DELETE"}),
        ("HEAD", "/virtualmachines/test-vm", {"GET", "PUT", "DELETE"}),
        ("DELETE", "/virtualmachines", {"GET", "POST"}),
    ],
)
async def test_other_methods_are_405(gateway: Setup, method: str, path: str, allow: set[str]) -> None:
    response = await gateway.http.request(method, path, headers=AUTH)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) - {"HEAD"} == allow
    assert method == "HEAD" or is_status(response, 405, "MethodNotAllowed")


@pytest.mark.parametrize("path", ["/", "/virtualmachines/", "/virtualmachines/a/b", "/apis/kubevirt.io/v1"])
async def test_other_paths_are_404(gateway: Setup, path: str) -> None:
    assert is_status(await gateway.http.get(path, headers=AUTH), 404, "NotFound")
    assert not gateway.fake.requests


async def test_an_account_whose_namespace_is_no_tenants_is_403(gateway: Setup) -> None:
    message = 'serviceaccounts "tenant-a-user" is forbidden: User "g" cannot impersonate resource "serviceaccounts"'
    details = {"name": "tenant-a-user", "kind": "serviceaccounts"}
    gateway.fake.code, gateway.fake.answer = 403, {"kind": "Status", "message": message, "details": details}
    response = await gateway.http.get("/virtualmachines", headers=AUTH)
    assert is_status(response, 403, "Forbidden")
    assert "not a tenant's" in response.json()["message"]
    (line,) = gateway.lines()
    assert (line["verdict"], line["code"]) == ("denied", 403)
    assert TENANT_ROLE in line["reason"]
    assert message in line["reason"]


async def test_the_access_log_says_who_what_and_why_but_not_the_token(gateway: Setup) -> None:
    response = await gateway.http.post("/virtualmachines", json=VM, headers=AUTH)
    (line,) = gateway.lines()
    assert line.pop("time").endswith("Z")
    assert 0 < line.pop("latency_ms") < 10_000
    request_id = response.headers["x-request-id"]
    assert line == {
        "request_id": request_id,
        "method": "POST",
        "user": TENANT,
        "tenant": "tenant-a",
        "namespace": "tenant-a",
        "verb": "create",
        "resource": "virtualmachines",
        "subresource": "",
        "name": "test-vm",
        "token_review": request_id + TOKEN_REVIEW_SUFFIX,
        "access_review": request_id + ACCESS_REVIEW_SUFFIX,
        "code": 200,
        "verdict": "allowed",
        "reason": "RBAC: as the test wants",
    }
    assert "good" not in gateway.access_log.read_text()


PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
IDENTITY_HEADERS = ["Impersonate-User", "Impersonate-Group", "Impersonate-Extra-a", "X-Remote-User", "Authorization"]
OTHER_HEADERS = ["X-Request-Id", "Audit-ID", "Content-Type", "Content-Length", "Content-Encoding", "Accept", "Cookie"]
HEADER_NAMES = st.sampled_from([*IDENTITY_HEADERS, *OTHER_HEADERS])
NAMES = st.text(max_size=20) | st.sampled_from(["test-vm", "..", ".", "a/../b", "a%2fb"])
BODIES = (
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.dictionaries(
        st.sampled_from(["apiVersion", "kind", "metadata", "spec"]),
        st.none() | st.integers() | st.text() | st.dictionaries(st.sampled_from(["name", "namespace"]), st.text()),
    ).map(lambda body: json.dumps(body).encode())
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
    name=st.none() | NAMES,
    query=st.dictionaries(st.sampled_from(["namespace", "dryRun", "fieldValidation", "x"]), st.text(), max_size=2),
    media_type=st.sampled_from(["application/json", "application/yaml", "text/plain"]),
    extra=st.lists(st.tuples(HEADER_NAMES, PRINTABLE), max_size=2),
    body=BODIES,
)
async def test_no_request_makes_a_5xx_or_passes_an_identity_on(
    gateway: Setup,
    method: str,
    name: str | None,
    query: dict[str, str],
    media_type: str,
    extra: list[tuple[str, str]],
    body: bytes,
) -> None:
    gateway.fake.requests.clear()
    path = "/virtualmachines" if name is None else "/virtualmachines/" + quote(name, safe="").replace(".", "%2e")
    headers = [("Authorization", "Bearer good"), ("Content-Type", media_type), *extra]
    content = b"" if method in ("GET", "DELETE") else body
    response = await gateway.http.request(method, path, params=query, headers=headers, content=content)

    assert response.status_code < 500, response.text
    assert isinstance(response.json(), dict)
    for request in gateway.fake.requests:
        reviewed = request.path in REVIEWS
        assert reviewed or request.path.startswith(BASE), request.path
        identity = {name: value for name, value in request.headers.items() if "mpersonate" in name or "emote" in name}
        assert identity == ({} if reviewed else {"Impersonate-User": TENANT})
        assert request.headers["Authorization"] == "Bearer the-gateways-own"
        assert request.headers["Audit-ID"].startswith(response.headers["x-request-id"])


def test_the_gateway_has_reviews_everywhere_and_impersonation_where_it_is_bound() -> None:
    roles = {body["metadata"]["name"]: body["rules"] for kind, body in manifests() if kind == CLUSTER_ROLES}
    (everywhere,) = [body["roleRef"]["name"] for kind, body in manifests() if kind == CLUSTER_ROLE_BINDINGS]
    bound = tenant_binding({})["roleRef"]["name"]
    assert {name: [(rule["resources"], rule["verbs"]) for rule in rules] for name, rules in roles.items()} == {
        everywhere: [(["tokenreviews"], ["create"]), (["subjectaccessreviews"], ["create"])],
        bound: [(["serviceaccounts"], ["impersonate"])],
    }
