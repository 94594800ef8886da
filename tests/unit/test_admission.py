"""The verdicts of virt-api's webhooks, asked over HTTP as the kube-apiserver asks."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clusters.kubevirt.api import app
from clusters.kubevirt.api.app import WEBHOOKS
from clusters.kubevirt.api.eviction import EVICTION_PATH
from clusters.kubevirt.api.reviews import MAX_REVIEW
from clusters.kubevirt.install import MUTATORS, VALIDATORS, Webhook
from tests.unit.admission_cases import CASES, Case, merged
from virtflow.kube import Object

PLURALS = {
    "VirtualMachine": "virtualmachines",
    "VirtualMachineInstance": "virtualmachineinstances",
    "VirtualMachineInstanceReplicaSet": "virtualmachineinstancereplicasets",
}
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"


@pytest.fixture
async def virt_api() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://virt-api") as client:
        yield client


async def ask(
    virt_api: httpx.AsyncClient, path: str, obj: Object, old: Object | None = None, user: str = "tenant"
) -> Object:
    request = {"uid": "u-1", "object": obj, "oldObject": old, "userInfo": {"username": user}}
    answer = await virt_api.post(path, json={"request": request})
    assert answer.status_code == 200
    response: Object = answer.json()["response"]
    assert response["uid"] == "u-1"
    return response


def patched(obj: Object, response: Object) -> Object:
    """The object with the patch of an answer applied: whole top-level fields, by `add`."""
    patch = json.loads(base64.b64decode(response.get("patch", "W10=")))
    return obj | {step["path"].removeprefix("/"): step["value"] for step in patch}


async def admit(virt_api: httpx.AsyncClient, obj: Object) -> tuple[Webhook | None, Object]:
    """Create an object through mutators, then validators: the webhook that refused it, and the last answer."""
    response: Object = {"allowed": True, "warnings": []}
    for webhook in (*MUTATORS, *VALIDATORS):
        if webhook.resource == PLURALS[obj["kind"]] and "CREATE" in webhook.operations:
            response = await ask(virt_api, webhook.path, obj)
            if not response["allowed"]:
                return webhook, response
            obj = patched(obj, response)
    return None, response


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
async def test_recorded_case(virt_api: httpx.AsyncClient, case: Case) -> None:
    webhook, response = await admit(virt_api, case.manifest("trace"))
    if case.by is None or case.by == "kube-apiserver":
        assert webhook is None
        assert response["warnings"] == ([case.warning] if case.warning else [])
        return
    assert webhook is not None
    assert webhook.name == case.by
    status = response["status"]
    assert (status["code"], status["message"]) == (case.code, case.message)
    if case.code == 422:
        where = {} if case.field is None else {"reason": "FieldValueInvalid", "field": case.field}
        assert status["details"]["causes"] == [{"message": case.message, **where}]


def spec_of(name: str) -> Object:
    return next(case.spec for case in CASES if case.case == name)


MINIMAL = spec_of("minimal")


@pytest.mark.anyio
async def test_a_machine_that_is_being_deleted_is_let_go_however_wrong_it_is(
    virt_api: httpx.AsyncClient,
) -> None:
    vm = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec_of("unknown runStrategy")}
    response = await ask(virt_api, "/virtualmachines-validate", vm, vm)
    assert response["allowed"] is True


@pytest.mark.anyio
@pytest.mark.parametrize(("user", "allowed"), [("tenant", False), (CONTROLLER, True)])
async def test_only_kubevirt_changes_an_instances_spec(virt_api: httpx.AsyncClient, user: str, allowed: bool) -> None:
    old = {"metadata": {}, "spec": MINIMAL["template"]["spec"]}
    new = old | {"spec": old["spec"] | {"hostname": "other"}}
    response = await ask(virt_api, "/virtualmachineinstances-validate-update", new, old, user)
    assert response["allowed"] is allowed
    if not allowed:
        assert response["status"]["message"] == "update of VMI object is restricted"


@pytest.mark.anyio
@pytest.mark.parametrize(("user", "phase"), [("tenant", "Scheduling"), (CONTROLLER, "Running")])
async def test_an_instances_status_is_kubevirts_to_write(virt_api: httpx.AsyncClient, user: str, phase: str) -> None:
    spec = MINIMAL["template"]["spec"]
    old: Object = {"metadata": {}, "spec": spec, "status": {"phase": "Scheduling"}}
    update: Object = {"metadata": {}, "spec": spec, "status": {"phase": "Running"}}
    response = await ask(virt_api, "/virtualmachineinstances-mutate", update, old, user)
    assert patched(update, response)["status"] == {"phase": phase}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("expression", "refusal"),
    [
        ({"key": "app", "operator": "In", "values": ["scale", "other"]}, None),
        ({"key": "app", "operator": "Exists"}, None),
        ({"key": "tier", "operator": "NotIn", "values": ["gold"]}, None),
        ({"key": "app", "operator": "DoesNotExist"}, "selector does not match labels."),
        ({"key": "app", "operator": "Near"}, '"Near" is not a valid label selector operator'),
    ],
)
async def test_a_selector_must_select_the_template(
    virt_api: httpx.AsyncClient, expression: Object, refusal: str | None
) -> None:
    spec = merged(spec_of("replica set with negative replicas"), {"selector": {"matchExpressions": [expression]}})
    response = await ask(virt_api, "/virtualmachinereplicaset-validate", {"metadata": {}, "spec": spec})
    assert response.get("status", {}).get("message") == refusal


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def paths(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in an object."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at] + [path for key, value in items for path in paths(value, (*at, key))]


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = list(node) if isinstance(node, list) else dict(node)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy


MANIFESTS = [case.manifest("trace") for case in CASES]
BROKEN_MANIFESTS = st.sampled_from(MANIFESTS).flatmap(
    lambda manifest: st.builds(replaced, st.just(manifest), st.sampled_from(paths(manifest)), JSON)
)


async def post(path: str, body: bytes) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://virt-api") as client:
        return await client.post(path, content=body)


def review(obj: object, old: object) -> bytes:
    return json.dumps({"request": {"uid": "u-1", "object": obj, "oldObject": old, "userInfo": {}}}).encode()


NAMELESS = {"": False}
"""A field without a name, where a rule asks for one of some names and finds none."""


@pytest.mark.anyio
@example(
    "/virtualmachines-validate",
    review(replaced(MANIFESTS[0], ("spec", "template", "spec", "domain", "devices", "disks", 0), NAMELESS), None),
)
@given(
    path=st.sampled_from(sorted(WEBHOOKS)),
    body=st.one_of(
        st.binary(max_size=64),
        JSON.map(lambda value: json.dumps(value).encode()),
        st.builds(review, BROKEN_MANIFESTS, st.none() | BROKEN_MANIFESTS),
    ),
)
async def test_no_body_breaks_a_webhook(path: str, body: bytes) -> None:
    answer = await post(path, body)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        response = answer.json()["response"]
        assert response["allowed"] or response["status"]["code"] in (400, 422)
        assert response["allowed"] or response["status"]["message"]


@pytest.mark.anyio
@pytest.mark.parametrize("body", [b"[" * 100_000, review({"spec": json.loads("[" * 400 + "]" * 400)}, None)])
async def test_an_absurd_depth_is_refused(body: bytes) -> None:
    answer = await post("/virtualmachines-mutate", body)
    assert answer.status_code == 400 or not answer.json()["response"]["allowed"]


@pytest.mark.anyio
async def test_a_review_has_a_bound(virt_api: httpx.AsyncClient) -> None:
    padding = b" " * MAX_REVIEW
    body = review({"spec": MINIMAL}, None)
    assert (await virt_api.post("/virtualmachines-mutate", content=body + padding[len(body) :])).status_code == 200
    assert (await virt_api.post("/virtualmachines-mutate", content=body + padding)).status_code == 413


LONE_SURROGATE = "\ud800"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "patch",
    [
        {"hostname": LONE_SURROGATE},
        {"schedulerName": LONE_SURROGATE},
        {"dnsPolicy": "None", "dnsConfig": {"searches": [LONE_SURROGATE]}},
        {"volumes": [{"name": "disk0", "cloudInitNoCloud": {"userData": LONE_SURROGATE}}]},
    ],
    ids=lambda patch: next(reversed(patch)),
)
async def test_half_a_character_is_judged_like_any_other(patch: Object) -> None:
    spec = MINIMAL["template"]["spec"] | {"architecture": LONE_SURROGATE} | patch
    answer = await post("/virtualmachineinstances-validate-create", review({"metadata": {}, "spec": spec}, None))
    assert answer.json()["response"]["status"]["code"] == 422


@pytest.mark.anyio
async def test_a_uid_comes_back_as_it_came() -> None:
    body = review({"spec": MINIMAL}, None).replace(b"u-1", b"\\ud800")
    assert (await post("/virtualmachines-mutate", body)).json()["response"]["uid"] == LONE_SURROGATE


@pytest.mark.anyio
async def test_an_instance_that_no_mutator_has_seen_is_judged(virt_api: httpx.AsyncClient) -> None:
    vmi = {"metadata": {}, "spec": MINIMAL["template"]["spec"]}
    response = await ask(virt_api, "/virtualmachineinstances-validate-create", vmi)
    assert response["status"]["message"] == "unsupported architecture: "


@pytest.mark.anyio
async def test_it_is_healthy(virt_api: httpx.AsyncClient) -> None:
    assert (await virt_api.get("/healthz")).status_code == 200


def test_each_webhook_that_is_installed_is_served() -> None:
    assert {webhook.path for webhook in (*MUTATORS, *VALIDATORS)} == {*WEBHOOKS, EVICTION_PATH}
