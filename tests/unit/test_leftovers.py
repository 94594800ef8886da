"""What cleanup finds in a cluster of whatever kinds, in which order it deletes, and what it says of what stays."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from tests.unit.held_cluster import HeldCluster
from tests.unit.kube_support import client_of
from virtflow import leftovers as module
from virtflow.errors import InfrastructureError
from virtflow.kube import KubeClient, KubeError
from virtflow.kube.inventory import take_inventory
from virtflow.leftovers import find_leftovers, left_by, remove_leftovers, sweep, what_holds

pytestmark = pytest.mark.anyio

NAMESPACES = "/api/v1/namespaces"
IN_A = f"{NAMESPACES}/a"
WIDGETS = "/apis/example.com/v2/widgets"
SELECTOR = "virtflow.io/run=r1"


@pytest.fixture
def cluster() -> HeldCluster:
    return HeldCluster()


@pytest.fixture
async def kube(cluster: HeldCluster, tmp_path: Path) -> AsyncIterator[KubeClient]:
    async with client_of(cluster.handle, tmp_path) as kube:
        yield kube


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", timedelta(milliseconds=1))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALLED_AFTER", timedelta(milliseconds=50))


async def test_each_kind_is_looked_at_once_in_the_version_its_server_prefers(
    cluster: HeldCluster, kube: KubeClient
) -> None:
    cluster.add(NAMESPACES, "a")
    cluster.add(f"{IN_A}/secrets", "password")
    cluster.add(f"{IN_A}/events", "event")
    cluster.add(WIDGETS, "widget")
    cluster.add("/apis/example.com/v1/relics", "relic")
    cluster.add(WIDGETS, "of-another-run", run="r2")
    cluster.add(WIDGETS, "of-nobody", run="")
    found = await find_leftovers(kube, SELECTOR)
    assert found.unseen == []
    assert list(map(str, found.objects)) == [
        "Namespace a",
        "Relic relic",
        "Widget widget",
        "Event a/event",
        "Secret a/password",
    ]
    assert [str(each) for each in (await find_leftovers(kube)).objects if each.labels["virtflow.io/run"] == "r2"]
    # Neither what is only a view of something, nor another version of the same.
    assert not [asked for asked in cluster.asked if "metrics" in asked or "reviews" in asked or "v1/widgets" in asked]


async def test_in_a_namespace_what_belongs_to_the_cluster_is_not_asked_for(
    cluster: HeldCluster, kube: KubeClient
) -> None:
    cluster.add(NAMESPACES, "a")
    cluster.add(f"{IN_A}/secrets", "password", run="")
    cluster.add(f"{NAMESPACES}/b/secrets", "other", run="")
    inventory = await take_inventory(kube, namespace="a")
    assert list(map(str, inventory.objects)) == ["Secret a/password"]
    assert not [asked for asked in cluster.asked if "widgets" in asked]


async def test_what_cannot_be_looked_at_is_told(cluster: HeldCluster, kube: KubeClient) -> None:
    cluster.silent.add("example.com")
    cluster.fails["/api/v1/secrets"] = 403
    cluster.fails["/api/v1/events"] = 404  # no more such a kind: there is none of it
    found = await find_leftovers(kube)
    assert found.objects == []
    [group, *more] = found.unseen
    assert group == "all of example.com/v1 (nobody answers for it)"
    assert more[0] == "all of example.com/v2 (nobody answers for it)"
    assert "secrets (KubeError: GET /api/v1/secrets: 403" in more[1]
    assert len(more) == 2


async def test_namespaces_go_first_and_what_has_an_owner_goes_by_itself(
    cluster: HeldCluster, kube: KubeClient
) -> None:
    widget = cluster.add(WIDGETS, "widget")
    secret = cluster.add(f"{IN_A}/secrets", "held", finalizers=["example.com/hold"])
    part = "/apis/example.com/v2/namespaces/b/parts"
    owner = cluster.add(part, "owner", finalizers=["example.com/hold"])
    owned = cluster.add(part, "owned", ownerReferences=[{"uid": owner}], finalizers=["example.com/hold"])
    namespace = cluster.add(NAMESPACES, "a")

    def go_on(_: str) -> None:
        if owner in cluster.deleted:
            for path in {secret, owner, owned} & cluster.objects.keys():
                cluster.release(path)
            cluster.objects.pop(owned, None)

    cluster.on_list = go_on
    with anyio.fail_after(20):
        assert await remove_leftovers(kube, SELECTOR) == []
    assert cluster.objects == {}
    assert cluster.deleted[0] == namespace
    assert set(cluster.deleted[1:]) == {widget, owner, secret}


@pytest.mark.usefixtures("impatient")
async def test_what_stays_is_named_with_what_holds_it(cluster: HeldCluster, kube: KubeClient) -> None:
    cluster.add(NAMESPACES, "a", run="r1")
    cluster.add(f"{IN_A}/secrets", "held", run="", finalizers=["example.com/hold", "example.com/more"])
    cluster.add(WIDGETS, "widget", finalizers=["example.com/hold"])
    refused = cluster.add(WIDGETS, "refused")
    cluster.fails[refused] = 403
    other = cluster.add(WIDGETS, "of-another-run", run="r2")
    left = await remove_leftovers(kube, SELECTOR)
    assert left == [
        "Namespace a is there: Secret a/held is held by the finalizers example.com/hold, example.com/more",
        "Widget refused is there: its deletion was refused: it fails",
        "Widget widget is there: held by the finalizer example.com/hold",
    ]
    assert other not in cluster.deleted


async def test_as_long_as_something_goes_nobody_gives_up(
    cluster: HeldCluster, kube: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [cluster.add(WIDGETS, f"widget-{number}", finalizers=["example.com/hold"]) for number in range(5)]
    looks = 0
    almost = 0.9 * module.STALLED_AFTER.total_seconds()
    monkeypatch.setattr(module, "now", lambda: looks * almost)

    def one_goes(collection: str) -> None:
        nonlocal looks
        if collection == WIDGETS:
            looks += 1
            if paths[0] in cluster.deleted and (there := sorted(cluster.objects)):
                cluster.release(there[0])

    cluster.on_list = one_goes
    with anyio.fail_after(20):
        assert await remove_leftovers(kube, SELECTOR) == []
    assert looks > len(paths)


async def test_a_kube_apiserver_that_is_away_for_a_moment_is_asked_again(
    cluster: HeldCluster, kube: KubeClient
) -> None:
    widget = cluster.add(WIDGETS, "widget")
    cluster.fails |= {WIDGETS: 503, widget: 503}

    def comes_back(_: str) -> None:
        if cluster.asked[f"GET {WIDGETS}"] == 3:
            cluster.fails.pop(WIDGETS, None)
        if cluster.asked[f"DELETE {widget}"] == 2:
            cluster.fails.pop(widget, None)

    cluster.on_list = comes_back
    with anyio.fail_after(20):
        assert await remove_leftovers(kube, SELECTOR) == []
    assert cluster.objects == {}
    assert cluster.deleted == [widget]


@pytest.mark.usefixtures("impatient")
async def test_what_cannot_be_looked_at_is_not_taken_for_gone(
    cluster: HeldCluster, kube: KubeClient, tmp_path: Path
) -> None:
    cluster.silent.add("example.com")
    with pytest.raises(InfrastructureError, match=r"all of example\.com/v2 \(nobody answers for it\) could not be"):
        await left_by(tmp_path / "kubeconfig.yaml", "r1")
    cluster.add(NAMESPACES, "a", finalizers=["example.com/hold"])
    left = await left_by(tmp_path / "kubeconfig.yaml", "r1")
    assert "all of example.com/v2 (nobody answers for it) could not be looked at" in left
    cluster.silent.clear()
    cluster.objects.clear()
    assert await left_by(tmp_path / "kubeconfig.yaml", "r1") == []


@pytest.mark.usefixtures("impatient")
async def test_a_kube_apiserver_that_stays_away_is_infrastructure(
    cluster: HeldCluster, kube: KubeClient, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig.yaml"
    [server] = [line for line in kubeconfig.read_text().splitlines() if "server:" in line]
    kubeconfig.write_text(kubeconfig.read_text().replace(server, f"{server.rpartition(':')[0]}:1"))
    words = "The kube-apiserver cannot be asked what is left: ClientConnectorError"
    for ask, whom in ((left_by, "r1"), (sweep, SELECTOR)):
        with pytest.raises(InfrastructureError, match=words):
            await ask(kubeconfig, whom)


def nothing(_: HeldCluster) -> None:
    pass


def a_pod_on_its_way(cluster: HeldCluster) -> None:
    cluster.add(f"{IN_A}/secrets", "going", run="", deletionTimestamp="2026-11-23T12:00:00Z")
    cluster.add(f"{IN_A}/secrets", "other", run="")


def not_deleted(cluster: HeldCluster) -> None:
    cluster.add(f"{IN_A}/secrets", "one", run="")


def too_many(cluster: HeldCluster) -> None:
    for number in range(module.NAMED_AT_MOST + 3):
        cluster.add(f"{IN_A}/secrets", f"s{number:02}", run="", finalizers=["f"])


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (nothing, "it is empty, and says nothing: is kube-controller-manager running?"),
        (a_pod_on_its_way, "Secret a/going is on its way out, without a finalizer; 1 more"),
        (
            not_deleted,
            "objects in it: 1; none of them is being deleted: kube-controller-manager, which does it, is down or "
            "behind",
        ),
        (too_many, "Secret a/s09 is held by the finalizer f; 3 more"),
    ],
)
async def test_what_holds_a_namespace_is_in_it(
    cluster: HeldCluster, kube: KubeClient, fill: Callable[[HeldCluster], None], words: str
) -> None:
    fill(cluster)
    said = await what_holds(kube, {"metadata": {"name": "a"}})
    assert said.endswith(words)


async def test_a_namespaces_own_words_come_first(cluster: HeldCluster, kube: KubeClient) -> None:
    conditions = [
        {"status": "True", "message": "Discovery failed."},
        {"status": "False", "message": "All content successfully removed"},
    ]
    namespace = {"metadata": {"name": "a"}, "status": {"conditions": conditions}}
    cluster.fails["/api/v1/namespaces/a/secrets"] = 500
    said = await what_holds(kube, namespace)
    assert said.startswith("Discovery failed; secrets (KubeError: ")
    assert said.endswith("could not be looked at")


async def test_without_a_list_of_kinds_nothing_is_said_to_be_gone(tmp_path: Path) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"code": 403, "message": "no"}, status=403)

    async with client_of(refuse, tmp_path) as kube:
        with pytest.raises(KubeError, match="403"):
            await find_leftovers(kube)
        said = await what_holds(kube, {"metadata": {"name": "a"}})
    assert said == "what is in it could not be looked at (KubeError: GET /api: 403 : no)"
