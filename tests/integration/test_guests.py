"""Guests on a running local cluster: a VMI that runs answers, and what it uses is written on its pod."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from clusters.kubevirt.guests.launchers import CREATED_BY
from clusters.kubevirt.guests.usage import USAGE
from clusters.kubevirt.objects import LAUNCHERS
from virtflow.kube import Informer, KubeClient, Object
from virtflow.kube.resources import NAMESPACES, PODS, VMIRS, VMIS

pytestmark = pytest.mark.anyio

PATIENCE = 60
"""Seconds for a VMI to run or to go; the least that a loaded machine needs is far below."""

SPEC = {
    "domain": {
        "cpu": {"cores": 1},
        "devices": {"disks": [{"name": "bootdisk", "disk": {"bus": "virtio"}}]},
        "memory": {"guest": "1Gi"},
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    },
    "terminationGracePeriodSeconds": 0,
    "volumes": [{"name": "bootdisk", "containerDisk": {"image": "quay.io/containerdisks/ubuntu:22.04"}}],
}


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig, agent="virtflow-tests") as client:
        yield client


@pytest.fixture
async def namespace(kube: KubeClient) -> AsyncIterator[str]:
    name = f"guests-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    await kube.delete(NAMESPACES, name)


async def until_answered(client: httpx.AsyncClient, path: str, code: int) -> httpx.Response:
    for _ in range(PATIENCE * 10):
        answer = await client.get(path)
        if answer.status_code == code:
            return answer
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{path} still answers {answer.status_code}, not {code}: {answer.text}")


def usage_of(pod: Object | None) -> str | None:
    return pod["metadata"].get("annotations", {}).get(USAGE) if pod else None


def millicores_between(least: int, most: int) -> Callable[[Object | None], bool]:
    def holds(pod: Object | None) -> bool:
        figure = usage_of(pod)
        return figure is not None and least <= int(figure.removesuffix("m")) <= most

    return holds


async def test_a_guest_lives_with_its_vmi_and_its_use_is_on_its_pod(
    kube: KubeClient, namespace: str, guests_url: str
) -> None:
    path = f"/namespaces/{namespace}/virtualmachineinstances/one/"
    pods = Informer(kube, PODS, namespace=namespace, selector=LAUNCHERS)
    async with httpx.AsyncClient(base_url=guests_url, timeout=30) as client, pods.running():
        assert (await client.get(path)).status_code == 404
        vmi = await kube.create(VMIS, {"metadata": {"name": "one"}, "spec": SPEC}, namespace)
        assert (await until_answered(client, path, 200)).json()["guest"] == "one"

        (pod,) = (p for p in pods.items() if p["metadata"]["labels"][CREATED_BY] == vmi["metadata"]["uid"])
        key = namespace, pod["metadata"]["name"]
        async with asyncio.timeout(PATIENCE):
            await pods.wait_for(*key, millicores_between(10, 100))
            # Nine seconds of work for one core, so that one window at least is busy from end to end.
            work = [asyncio.create_task(client.get(path + "?cost_ms=3000")) for _ in range(3)]
            await pods.wait_for(*key, millicores_between(1000, 1000))
            assert {answer.status_code for answer in await asyncio.gather(*work)} == {200}
            await pods.wait_for(*key, millicores_between(10, 10))

        await kube.delete(VMIS, "one", namespace)
        gone = await until_answered(client, path, 404)
        assert "no guest" in gone.json()["error"]


async def test_a_replica_sets_front_door_reaches_all_its_guests(
    kube: KubeClient, namespace: str, guests_url: str
) -> None:
    path = f"/namespaces/{namespace}/virtualmachineinstancereplicasets/web/"
    template = {"metadata": {"labels": {"app": "web"}}, "spec": SPEC}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    members = Informer(kube, VMIS, namespace=namespace)
    sets = Informer(kube, VMIRS, namespace=namespace)
    async with members.running(), sets.running(), contextlib.AsyncExitStack() as stack:
        await kube.create(VMIRS, {"metadata": {"name": "web"}, "spec": spec}, namespace)
        async with asyncio.timeout(PATIENCE):
            await sets.wait_for(
                namespace, "web", lambda found: bool(found and found.get("status", {}).get("readyReplicas") == 3)
            )
        names = {vmi["metadata"]["name"] for vmi in members.items()}
        # The guests' own copy of the cluster may be a moment behind the one here.
        for name in names:
            async with httpx.AsyncClient(base_url=guests_url) as client:
                await until_answered(client, f"/namespaces/{namespace}/virtualmachineinstances/{name}/", 200)
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=guests_url)) for _ in range(6)]
        first = [(await until_answered(client, path, 200)).json()["guest"] for client in clients]
        again = [(await client.get(path)).json()["guest"] for client in clients]
        assert {name: first.count(name) for name in first} == dict.fromkeys(names, 2)
        assert again == first
