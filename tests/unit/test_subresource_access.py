"""subresources.kubevirt.io over HTTP: who is let in, what discovery says, what is not modelled."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from clusters.kubevirt.api.subresources import LateClient, subresource_routes
from clusters.kubevirt.api.subresources.discovery import SUBRESOURCES
from clusters.kubevirt.api.subresources.endpoints import MAX_OPTIONS
from tests.unit.virt_controller_support import make_vm, make_vmi
from virtflow.kube import KubeClient, KubeError, Object, Resource
from virtflow.kube.resources import SUBJECT_ACCESS_REVIEWS, VMIS, VMS

pytestmark = pytest.mark.anyio

BASE = "/apis/subresources.kubevirt.io/v1"
START = f"{BASE}/namespaces/tenant/virtualmachines/test-vm/start"
PAUSE = f"{BASE}/namespaces/tenant/virtualmachineinstances/test-vm/pause"
ALICE = [
    ("X-Remote-User", "alice"),
    ("X-Remote-Group", "tenants"),
    ("X-Remote-Group", "system:authenticated"),
    ("X-Remote-Extra-Scopes%2fWhat", "a"),
    ("X-Remote-Extra-Scopes%2fWhat", "b"),
]


class Kube:
    """Holds a VM and perhaps its instance, and lets everybody do everything until told otherwise."""

    def __init__(self) -> None:
        self.objects: dict[Resource, Object] = {VMS: make_vm(strategy="Halted", created=True)}
        self.allowed = True
        self.fails: int | None = None
        self.reviews: list[Object] = []
        self.patches: list[tuple[Any, ...]] = []

    async def create(self, resource: Resource, body: Object) -> Object:
        assert resource == SUBJECT_ACCESS_REVIEWS
        self.reviews.append(body["spec"])
        return {"status": {"allowed": self.allowed, "reason": "because"}}

    async def get(self, resource: Resource, name: str, namespace: str) -> Object:
        found = self.objects.get(resource)
        if self.fails or found is None:
            raise KubeError(self.fails or 404, {"message": "so it is"}, "GET")
        return found

    async def patch(self, resource: Resource, name: str, patch: object, namespace: str, **how: Any) -> Object:
        self.patches.append((resource, name, namespace, how))
        return {}


class Nodes:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def put(self, namespace: str, instance: str, action: str) -> None:
        self.asked.append((namespace, instance, action))


Client = Callable[[str | None], httpx.AsyncClient]
"""An HTTP client whose certificate has this common name."""


@pytest.fixture
def kube() -> Kube:
    return Kube()


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
async def client(kube: Kube, nodes: Nodes) -> AsyncIterator[Client]:
    async def connect() -> Any:
        return kube

    app = Starlette(routes=list(subresource_routes(connect, nodes, ["aggregator"])))  # type: ignore[arg-type]
    opened: list[httpx.AsyncClient] = []

    def make(name: str | None) -> httpx.AsyncClient:
        async def with_certificate(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": {"client_name": name}}, receive, send)

        headers = ALICE if name is not None else None
        transport = httpx.ASGITransport(with_certificate)
        opened.append(httpx.AsyncClient(transport=transport, base_url="http://virt-api", headers=headers))
        return opened[-1]

    yield make
    for each in opened:
        await each.aclose()


@pytest.mark.parametrize("name", [None, "", "gateway"])
async def test_nobody_but_the_front_proxy_is_believed(client: Client, kube: Kube, name: str | None) -> None:
    answer = await client(name).put(START, headers=ALICE)
    assert (answer.status_code, answer.text) == (401, "request is not authenticated")
    assert (kube.reviews, kube.patches) == ([], [])


async def test_the_user_behind_the_front_proxy_is_asked_about(client: Client, kube: Kube) -> None:
    assert (await client("aggregator").put(START)).status_code == 202
    assert kube.reviews == [
        {
            "user": "alice",
            "groups": ["tenants", "system:authenticated"],
            "extra": {"scopes/what": ["a", "b"]},
            "resourceAttributes": {
                "group": "subresources.kubevirt.io",
                "version": "v1",
                "verb": "update",
                "namespace": "tenant",
                "resource": "virtualmachines",
                "name": "test-vm",
                "subresource": "start",
            },
        }
    ]


async def test_who_may_not_is_told_the_reason_and_nothing_is_written(client: Client, kube: Kube) -> None:
    kube.allowed = False
    answer = await client("aggregator").put(START)
    assert (answer.status_code, answer.text, kube.patches) == (401, "because", [])


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("X-Remote-User", "a valid user header is required for authorization"),
        ("X-Remote-Group", "a valid group header is required for authorization"),
    ],
)
async def test_a_front_proxy_that_names_nobody_is_refused(client: Client, missing: str, why: str) -> None:
    http = client("aggregator")
    del http.headers[missing]
    answer = await http.put(START)
    assert (answer.status_code, answer.text) == (401, why)


@pytest.mark.parametrize(
    "path",
    [
        "namespaces/tenant/virtualmachines/test-vm",
        "namespaces/tenant/secrets/test-vm/start",
        "namespaces/tenant/virtualmachines/%2e%2e/start",
        "namespaces/%2e%2e/virtualmachines/test-vm/start",
    ],
)
async def test_a_path_that_is_no_subresource_is_refused_before_anything_is_read(
    client: Client, kube: Kube, path: str
) -> None:
    answer = await client("aggregator").put(f"{BASE}/{path}")
    assert answer.status_code == 401
    assert answer.text.startswith("unknown api endpoint: ")
    assert kube.reviews == []


@pytest.mark.parametrize("mark", ["?", "#"])
async def test_what_is_asked_about_is_what_would_be_done(client: Client, kube: Kube, mark: str) -> None:
    answer = await client("aggregator").put(f"{START}%{ord(mark):X}x")
    assert (answer.status_code, kube.patches) == (404, [])
    assert [each["resourceAttributes"]["subresource"] for each in kube.reviews] == [f"start{mark}x"]


@pytest.mark.parametrize("name", ["virtualmachines/test-vm/start", "virtualmachineinstances/test-vm/pause"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_options_have_a_bound(client: Client, kube: Kube, nodes: Nodes, name: str, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_OPTIONS + 1):
            yield b" "

    kube.objects[VMIS] = make_vmi("Running")
    content = chunks() if chunked else b" " * (MAX_OPTIONS + 1)
    answer = await client("aggregator").put(f"{BASE}/namespaces/tenant/{name}", content=content)
    assert (answer.status_code, answer.json()) == (
        413,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"Request entity too large: limit is {MAX_OPTIONS}",
            "reason": "RequestEntityTooLarge",
            "code": 413,
        },
    )
    assert (kube.patches, nodes.asked) == ([], [])


async def test_a_client_that_could_not_be_made_is_made_the_next_time(
    monkeypatch: pytest.MonkeyPatch, kube: Kube
) -> None:
    outcomes: list[Kube | OSError] = [OSError("no kubeconfig"), OSError("no kubeconfig"), kube]

    async def connect(_: Path, agent: str) -> Kube:
        match outcomes.pop(0):
            case OSError() as error:
                raise error
            case made:
                return made

    monkeypatch.setattr(KubeClient, "connect", connect)
    late: Callable[[], Awaitable[Any]] = LateClient(Path("kubeconfig"))
    for _ in range(2):
        with pytest.raises(OSError, match="no kubeconfig"):
            await late()
    assert [await late(), await late(), outcomes] == [kube, kube, []]


async def test_discovery_needs_no_certificate_and_names_no_object(client: Client) -> None:
    http = client(None)
    for version in ("v1", "v1alpha3"):
        found = (await http.get(f"/apis/subresources.kubevirt.io/{version}")).json()
        assert (found["kind"], found["groupVersion"]) == ("APIResourceList", f"subresources.kubevirt.io/{version}")
        assert [each["name"] for each in found["resources"]] == ["expand-vm-spec", *SUBRESOURCES]
        assert not any(each["verbs"] for each in found["resources"])
    assert (await http.get(f"{BASE}/version")).json()["gitVersion"].startswith("v1.9.0")


MODELLED = {"start", "stop", "restart", "pause", "unpause", "guestosinfo", "userlist", "filesystemlist"}
NOT_MODELLED = [name for name in SUBRESOURCES if name.partition("/")[2] not in MODELLED]


@pytest.mark.parametrize("name", [*NOT_MODELLED, "virtualmachineinstances/portforward/22/tcp"])
async def test_what_is_not_modelled_says_so(client: Client, name: str) -> None:
    resource, _, subresource = name.partition("/")
    answer = await client("aggregator").put(f"{BASE}/namespaces/tenant/{resource}/test-vm/{subresource}")
    status = answer.json()
    assert (answer.status_code, status["kind"], status["code"]) == (501, "Status", 501)
    assert status["message"] == f"{name}: the stand-in for KubeVirt does not model this subresource"


async def test_expand_vm_spec_stands_alone_and_is_not_modelled(client: Client, kube: Kube) -> None:
    assert (await client("aggregator").put(f"{BASE}/namespaces/tenant/expand-vm-spec")).status_code == 501
    assert kube.reviews[0]["resourceAttributes"] == {
        "group": "subresources.kubevirt.io",
        "version": "v1",
        "verb": "update",
        "namespace": "tenant",
        "resource": "expand-vm-spec",
    }


async def test_what_kubevirt_does_not_have_is_not_found(client: Client) -> None:
    http = client("aggregator")
    assert (await http.put(f"{BASE}/namespaces/tenant/virtualmachines/test-vm/pause")).status_code == 404
    assert (await http.get(START)).status_code == 405


@pytest.mark.parametrize("action", ["start", "stop", "restart"])
async def test_a_machine_that_is_not_there(client: Client, kube: Kube, action: str) -> None:
    kube.objects = {}
    answer = await client("aggregator").put(f"{BASE}/namespaces/tenant/virtualmachines/gone/{action}")
    assert (answer.status_code, answer.json()) == (
        404,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'virtualmachine.kubevirt.io "gone" not found',
            "reason": "NotFound",
            "details": {"name": "gone", "group": "kubevirt.io", "kind": "virtualmachine"},
            "code": 404,
        },
    )


async def test_what_cannot_be_read_is_an_internal_error(client: Client, kube: Kube) -> None:
    kube.fails = 403
    answer = await client("aggregator").put(START)
    message = "Internal error occurred: unable to retrieve vm [test-vm]: so it is"
    assert (answer.status_code, answer.json()["message"]) == (500, message)


@pytest.mark.parametrize(("body", "dry_run"), [({}, False), ({"dryRun": ["All"]}, True)])
async def test_a_dry_run_is_one_of_the_patch_too(client: Client, kube: Kube, body: Object, dry_run: bool) -> None:
    assert (await client("aggregator").put(START, json=body)).status_code == 202
    [(resource, name, namespace, how)] = kube.patches
    assert (resource, name, namespace) == (VMS, "test-vm", "tenant")
    assert how == {"kind": "json", "subresource": None, "dry_run": dry_run}


PAUSED = {"type": "Paused", "status": "True"}
LIVENESS = "Pausing VMIs with LivenessProbe is currently not supported"


@pytest.mark.parametrize(
    ("action", "phase", "conditions", "probe", "code", "why"),
    [
        ("pause", "Running", [], None, 200, ""),
        ("pause", "Running", [PAUSED], None, 409, "VMI is already paused"),
        ("pause", "Scheduled", [], None, 409, "VM is not running"),
        ("pause", "Running", [], {}, 403, LIVENESS),
        ("unpause", "Running", [PAUSED], None, 200, ""),
        ("unpause", "Running", [], None, 409, "VMI is not paused"),
        ("unpause", "Failed", [PAUSED], None, 409, "VMI is not running"),
    ],
)
async def test_pause_and_unpause(
    client: Client,
    kube: Kube,
    nodes: Nodes,
    action: str,
    phase: str,
    conditions: list[Object],
    probe: Object | None,
    code: int,
    why: str,
) -> None:
    kube.objects[VMIS] = make_vmi(phase, conditions=conditions)
    if probe is not None:
        kube.objects[VMIS]["spec"]["livenessProbe"] = probe
    path = f"{BASE}/namespaces/tenant/virtualmachineinstances/test-vm/{action}"
    http = client("aggregator")
    for asked in ([], [("tenant", "test-vm", action)]):
        # A dry run goes first: it checks everything, and no node hears of it.
        answer = await http.put(path, json={"dryRun": [] if asked else ["All"]})
        assert answer.status_code == code
        assert nodes.asked == (asked if code == 200 else [])
    if why:
        assert answer.json()["message"].endswith(f": {why}")


@pytest.mark.parametrize(
    ("phase", "why"),
    [("Running", "VMI does not have guest agent connected"), ("Pending", "VMI is not running")],
)
async def test_no_guest_has_an_agent(client: Client, kube: Kube, phase: str, why: str) -> None:
    kube.objects[VMIS] = make_vmi(phase)
    for name in ("guestosinfo", "userlist", "filesystemlist"):
        answer = await client("aggregator").get(f"{BASE}/namespaces/tenant/virtualmachineinstances/test-vm/{name}")
        what = 'Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io "test-vm"'
        assert (answer.status_code, answer.text) == (500, f"{what}: {why}")
