from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import pytest
from starlette.applications import Starlette

from clusters.kubevirt.api.eviction import EVICTION_PATH, eviction_route, instance_of, refusal
from tests.unit.virt_controller_support import NAMESPACE, make_vmi
from virtflow.kube import KubeError, Object, Resource
from virtflow.kube.resources import PODS, VMIS

EVACUATION = f'Eviction triggered evacuation of VMI "{NAMESPACE}/test-vm"'


def make_pod(**metadata: Object) -> Object:
    labels, annotations = {"kubevirt.io": "virt-launcher"}, {"kubevirt.io/domain": "test-vm"}
    meta = {"labels": labels, "annotations": annotations, **metadata}
    return {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    ("strategy", "status", "message"),
    [
        (None, {}, None),
        ("None", {}, None),
        ("LiveMigrateIfPossible", {}, None),
        ("LiveMigrate", {}, "VMI test-vm is configured with an eviction strategy but is not live-migratable"),
        ("External", {}, EVACUATION),
        ("External", {"evacuationNodeName": "node-1"}, f"Evacuation in progress: {EVACUATION}"),
        ("External", {"nodeName": "node-2"}, "Eviction request for target Pod"),
    ],
)
def test_the_eviction_strategy_decides(strategy: str | None, status: Object, message: str | None) -> None:
    vmi = make_vmi("Running", nodeName="node-1")
    vmi["status"] |= status
    vmi["spec"].pop("evictionStrategy", None)
    if strategy:
        vmi["spec"]["evictionStrategy"] = strategy
    assert refusal(make_pod(), vmi) == message


def test_only_a_launcher_that_has_not_ended_is_an_instances() -> None:
    assert instance_of(make_pod()) == "test-vm"
    assert instance_of(make_pod(labels={})) is None
    assert instance_of(make_pod(annotations={})) is None
    assert instance_of({**make_pod(), "status": {"phase": "Failed"}}) is None


class Kube:
    """Holds a launcher pod and its instance; a call named in `fails` raises what is there."""

    def __init__(self, strategy: str, **fails: Exception) -> None:
        vmi = make_vmi("Running", nodeName="node-1")
        vmi["spec"]["evictionStrategy"] = strategy
        self.objects = {PODS: make_pod(), VMIS: vmi}
        self.fails = fails
        self.marks: list[Object] = []

    async def connect(self) -> Any:
        self.fail("connect")
        return self

    async def get(self, resource: Resource, name: str, namespace: str) -> Object:
        self.fail(f"get_{resource.plural}")
        return self.objects[resource]

    async def patch(self, resource: Resource, name: str, patch: list[Object], namespace: str, kind: str) -> Object:
        self.fail("patch")
        self.marks += patch
        return {}

    def fail(self, call: str) -> None:
        if call in self.fails:
            raise self.fails[call]


async def post(connect: Callable[[], Awaitable[Any]], **content: Any) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=[eviction_route(connect)]), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://virt-api") as client:
        return await client.post(EVICTION_PATH, **content)


async def evict(kube: Kube, **asked: Any) -> Object:
    request = {"uid": "u-1", "namespace": NAMESPACE, "name": "virt-launcher", **asked}
    answer = await post(kube.connect, json={"request": request})
    assert answer.status_code == 200
    response: Object = answer.json()["response"]
    assert response["uid"] == "u-1"
    return response


@pytest.mark.anyio
@pytest.mark.parametrize(("dry_run", "marks"), [(None, 1), (False, 1), (True, 0)])
async def test_an_instance_is_marked_for_who_evacuates_it_unless_it_is_a_dry_run(
    dry_run: bool | None, marks: int
) -> None:
    kube = Kube("External")
    response = await evict(kube, dryRun=dry_run)
    assert (response["allowed"], response["status"]) == (False, {"message": EVACUATION, "code": 429})
    assert kube.marks == [{"op": "add", "path": "/status/evacuationNodeName", "value": "node-1"}] * marks


@pytest.mark.anyio
async def test_a_pod_that_is_on_no_node_yet_is_refused_like_another() -> None:
    kube = Kube("External")
    del kube.objects[PODS]["spec"]["nodeName"], kube.objects[VMIS]["status"]["nodeName"]
    response = await evict(kube)
    assert (response["allowed"], response["status"]["message"]) == (False, EVACUATION)


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["connect", "get_pods", "get_virtualmachineinstances", "patch"])
@pytest.mark.parametrize(
    "error", [aiohttp.ClientError("gone"), TimeoutError(), OSError("no kubeconfig"), KeyError("a mistake")], ids=repr
)
async def test_what_cannot_be_judged_is_refused(call: str, error: Exception) -> None:
    response = await evict(Kube("External", **{call: error}))
    assert (response["allowed"], response["status"]["code"]) == (False, 429)


@pytest.mark.anyio
async def test_a_pod_that_is_gone_may_go() -> None:
    assert (await evict(Kube("External", get_pods=KubeError(404, {}, "GET"))))["allowed"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b"{}",
        b'{"request": []}',
        b'{"request": {"uid": "u", "namespace": "a"}}',
        b'{"request": {"uid": "u", "namespace": "a", "name": ""}}',
        b'{"request": {"uid": "u", "namespace": "a", "name": "../b"}}',
    ],
    ids=lambda body: str(body[:60]),
)
async def test_what_is_no_review_is_said_to_be_none(body: bytes) -> None:
    answer = await post(Kube("External").connect, content=body)
    assert answer.status_code == 400
    assert answer.text.startswith("This is no AdmissionReview")
