"""What is offered: which path leads where, what is asked of RBAC for it, and how a no to it is said."""

import pytest

from clusters.gateway.access import Access, forbidden
from clusters.gateway.offered import ACTIONS, ENDPOINTS, RESOURCES, Endpoint
from tests.unit.gateway_support import AUTH, REVIEWS, TENANT, VM, Setup, is_status
from virtflow.kube import Object, Resource
from virtflow.kube.resources import PODS, SECRETS, VM_ACTIONS, VMS

pytestmark = pytest.mark.anyio

REQUESTS = [(endpoint, method) for endpoint in ENDPOINTS for method in endpoint.verbs]
WRITES = [(resource, "POST") for resource in RESOURCES] + [(resource, "PUT") for resource in RESOURCES]


def manifest(resource: Resource, **fields: object) -> Object:
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "test"}, **fields}


def body_of(endpoint: Endpoint, method: str) -> Object | None:
    return manifest(endpoint.resource) if endpoint.verbs[method] in ("create", "update") else None


@pytest.mark.parametrize(("endpoint", "method"), REQUESTS, ids=lambda each: getattr(each, "path", each))
async def test_each_request_is_asked_of_rbac_and_sent_on_as_what_it_is(
    gateway: Setup, endpoint: Endpoint, method: str
) -> None:
    gateway.fake.may_delete = True
    path, resource = endpoint.path.replace("{name}", "test"), endpoint.resource
    response = await gateway.http.request(method, path, headers=AUTH, json=body_of(endpoint, method))

    assert response.status_code == 200, response.text
    name = "test" if "{name}" in endpoint.path else ""
    assert gateway.fake.bodies[1]["spec"]["resourceAttributes"] == {
        "namespace": "tenant-a",
        "verb": endpoint.verbs[method],
        "group": resource.group,
        "version": resource.version,
        "resource": resource.plural,
        "subresource": endpoint.subresource,
        "name": name,
    }
    sent = gateway.fake.requests[2]
    prefix = f"/apis/{resource.group}" if resource.group else "/api"
    assert (sent.method, sent.path) == (method, f"{prefix}/{resource.version}/namespaces/tenant-a{path}")
    assert sent.headers["Impersonate-User"] == TENANT
    assert gateway.fake.bodies[2] == (body_of(endpoint, method) or {})
    (line,) = gateway.lines()
    assert (line["resource"], line["subresource"], line["verb"], line["name"]) == (
        resource.plural,
        endpoint.subresource,
        endpoint.verbs[method],
        "test" if body_of(endpoint, method) else name,
    )


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (
            Access("list", PODS, "ns"),
            'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "ns"',
        ),
        (
            Access("get", SECRETS, "ns", "s"),
            'secrets "s" is forbidden: User "u" cannot get resource "secrets" in API group "" in the namespace "ns"',
        ),
        (
            Access("list", VMS, ""),
            'virtualmachines.kubevirt.io is forbidden: User "u" cannot list resource "virtualmachines" in API group '
            '"kubevirt.io" at the cluster scope',
        ),
        (
            Access("update", VM_ACTIONS, "ns", "vm", "start"),
            'virtualmachines.subresources.kubevirt.io "vm" is forbidden: User "u" cannot update resource '
            '"virtualmachines/start" in API group "subresources.kubevirt.io" in the namespace "ns"',
        ),
    ],
)
def test_a_refusal_reads_as_the_apiservers(access: Access, message: str) -> None:
    refusal = forbidden("u", access, "").status("id")
    assert refusal["message"] == message
    details = {"name": access.name, "group": access.resource.group, "kind": access.resource.plural}
    causes = [{"reason": "RequestId", "message": "id"}]
    assert refusal["details"] == {key: value for key, value in details.items() if value} | {"causes": causes}


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.plural)
async def test_a_list_of_the_whole_cluster_is_asked_as_one(gateway: Setup, resource: Resource) -> None:
    path = f"/{resource.plural}?allNamespaces=true"
    denied = await gateway.http.get(path, headers=AUTH)
    assert is_status(denied, 403, "Forbidden")
    assert "at the cluster scope" in denied.json()["message"]

    gateway.fake.cluster_wide = True
    assert (await gateway.http.get(path, headers=AUTH)).status_code == 200
    assert gateway.fake.requests[-1].path == resource.path()
    assert not gateway.fake.requests[-1].query_string
    assert [line["namespace"] for line in gateway.lines()] == ["", ""]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/pods?allNamespaces=false"),
        ("GET", "/pods?allNamespaces="),
        ("GET", "/pods?allNamespaces=true&allNamespaces=true"),
        ("GET", "/pods?allNamespaces=true&namespace=tenant-a"),
        ("GET", "/pods/test?allNamespaces=true"),
        ("POST", "/pods?allNamespaces=true"),
        ("DELETE", "/pods/test?allNamespaces=true"),
        ("PUT", "/virtualmachines/test/start?allNamespaces=true"),
        ("GET", "/pods?dryRun=All"),
        ("DELETE", "/pods/test?fieldValidation=Strict"),
        ("POST", "/pods?dryRun=Some"),
        ("POST", "/pods?fieldValidation=strict"),
        ("PUT", "/virtualmachines/test/stop?dryRun=All"),
        ("GET", "/pods?watch=true"),
        ("GET", "/secrets/a%2Fb"),
        ("PUT", "/virtualmachines/test%2fstart"),
        ("PUT", "/virtualmachines/test/..%2Fother/start"),
    ],
)
async def test_what_would_be_dropped_or_read_otherwise_elsewhere_is_400(
    gateway: Setup, method: str, path: str
) -> None:
    gateway.fake.cluster_wide = gateway.fake.may_delete = True
    body = manifest(PODS) if method == "POST" else None
    response = await gateway.http.request(method, path, headers=AUTH, json=body)
    assert response.status_code in (400, 404), response.text
    assert {request.path for request in gateway.fake.requests} <= {REVIEWS[0]}


@pytest.mark.parametrize(("resource", "method"), WRITES, ids=lambda each: getattr(each, "plural", each))
async def test_a_manifest_must_be_of_the_paths_kind(gateway: Setup, resource: Resource, method: str) -> None:
    path = f"/{resource.plural}" + ("/test" if method == "PUT" else "")
    for other in RESOURCES:
        if other != resource:
            response = await gateway.http.request(method, path, headers=AUTH, json=manifest(other))
            assert is_status(response, 400, "BadRequest")
            assert f"send a {resource.kind} of {resource.api_version}" in response.json()["message"]
    assert {request.path for request in gateway.fake.requests} == {REVIEWS[0]}


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.plural)
async def test_nothing_acts_on_a_collection_and_nothing_is_patched(
    gateway: Setup, resource: Resource, method: str
) -> None:
    response = await gateway.http.request(method, f"/{resource.plural}", headers=AUTH)
    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == ["GET", "POST"]
    assert not gateway.fake.requests


@pytest.mark.parametrize("action", ACTIONS)
async def test_an_action_may_have_options_or_none(gateway: Setup, action: str) -> None:
    path = f"/virtualmachines/test/{action}?namespace=tenant-a"
    assert (await gateway.http.put(path, headers=AUTH)).status_code == 200
    assert gateway.fake.requests[-1].path == VM_ACTIONS.path("tenant-a", "test", action)
    assert not gateway.fake.requests[-1].body_exists
    assert (await gateway.http.put(path, headers=AUTH, json={"dryRun": ["All"]})).status_code == 200
    assert gateway.fake.bodies[-1] == {"dryRun": ["All"]}
    # Not a manifest: its metadata says nothing of where the machine is.
    elsewhere = {"metadata": {"namespace": "tenant-b", "name": "other"}}
    assert (await gateway.http.put(path, headers=AUTH, json=elsewhere)).status_code == 200
    assert gateway.fake.requests[-1].path == VM_ACTIONS.path("tenant-a", "test", action)
    assert gateway.lines()[-1]["name"] == "test"


@pytest.mark.parametrize(
    ("content", "media_type", "code"),
    [
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b'{"a": 1, "a": 2}', "application/json", 400),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "application/json", 400),
        (b"paused: true", "application/yaml", 415),
        (b"{}", None, 415),
        (b" " * (1024 * 1024 + 1), "application/json", 413),
    ],
)
async def test_options_that_are_none_are_refused(
    gateway: Setup, content: bytes, media_type: str | None, code: int
) -> None:
    headers = {**AUTH, "Content-Type": media_type} if media_type else AUTH
    response = await gateway.http.put("/virtualmachines/test/start", headers=headers, content=content)
    assert response.status_code == code, response.text
    assert [request.path for request in gateway.fake.requests] == [REVIEWS[0]]


@pytest.mark.parametrize("resource", [SECRETS, PODS], ids=lambda each: each.plural)
@pytest.mark.parametrize(
    "body",
    [
        {"kind": "the-value"},
        {"apiVersion": ["the-value"]},
        {"metadata": "the-value"},
        {"metadata": {"namespace": "The-Value"}},
        {"metadata": {"name": {"the-value": 1}, "namespace": "the_value"}},
    ],
)
async def test_a_refusal_that_quotes_a_secret_is_for_its_owner_alone(
    gateway: Setup, resource: Resource, body: Object
) -> None:
    response = await gateway.http.post(f"/{resource.plural}", headers=AUTH, json={**manifest(resource), **body})
    assert is_status(response, 400, "BadRequest")
    assert gateway.lines()[0]["reason"].startswith("BadRequest")
    assert "the-value" not in gateway.access_log.read_text().lower()


@pytest.mark.parametrize("text", ["*the-value", "!the-value x", "{the-value: 1, the-value: 1}", "the-value: ["])
async def test_a_secret_that_is_no_yaml_is_not_quoted(gateway: Setup, text: str) -> None:
    headers = {**AUTH, "Content-Type": "application/yaml"}
    response = await gateway.http.post("/secrets", headers=headers, content=f"data: {text}")
    assert is_status(response, 400, "BadRequest")
    assert "the-value" not in gateway.access_log.read_text()


async def test_the_apiservers_words_of_a_secret_are_not_noted_those_of_a_machine_are(gateway: Setup) -> None:
    gateway.fake.code = 422
    gateway.fake.answer = {"kind": "Status", "code": 422, "reason": "Invalid", "message": "not the-value"}
    for resource, body in ((SECRETS, manifest(SECRETS)), (PODS, manifest(PODS)), (VMS, VM)):
        response = await gateway.http.post(f"/{resource.plural}", headers=AUTH, json=body)
        assert response.json() == gateway.fake.answer
    assert [line["reason"] for line in gateway.lines()] == ["Invalid", "Invalid", "not the-value"]
