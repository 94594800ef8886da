"""Load on a replica set's front door on a running local cluster, and what it does to its guests."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from clusters.kubevirt.objects import LAUNCHERS
from clusters.local import LocalCluster
from load.results import LoadPlan, LoadProgress, latencies_of
from load.runner import run_load
from tests.integration.test_guests import SPEC, until_answered, usage_of
from virtflow.kube import Informer, KubeClient
from virtflow.kube.resources import NAMESPACES, PODS, VMIRS

pytestmark = pytest.mark.anyio

NAME = "load-front-door"


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig, agent="virtflow-tests") as client:
        yield client


@pytest.fixture
async def front_door(kube: KubeClient, guests_url: str) -> AsyncIterator[str]:
    """The URL of a replica set of one guest with one core: it can answer 20 requests of 50 ms a second."""
    await kube.create(NAMESPACES, {"metadata": {"name": NAME}})
    template = {"metadata": {"labels": {"app": "web"}}, "spec": SPEC}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    await kube.create(VMIRS, {"metadata": {"name": "web"}, "spec": spec}, NAME)
    path = f"/namespaces/{NAME}/virtualmachineinstancereplicasets/web/"
    try:
        async with httpx.AsyncClient(base_url=guests_url) as client:
            await until_answered(client, path, 200)
        yield guests_url + path
    finally:
        await kube.delete(NAMESPACES, NAME)


async def test_load_past_capacity_waits_and_shows_on_the_pod(
    kube: KubeClient, front_door: str, cluster: LocalCluster
) -> None:
    plan = LoadPlan(
        f"{front_door}?cost_ms=50",
        users=40,
        ramp=timedelta(seconds=8),
        hold=timedelta(seconds=8),
        requests_per_connection=5,
    )
    figures: list[int] = []
    pods = Informer(kube, PODS, namespace=NAME, selector=LAUNCHERS)
    async with pods.running():

        def look(_: LoadProgress) -> None:
            figures.extend(int(figure.removesuffix("m")) for pod in pods.items() if (figure := usage_of(pod)))

        result = await run_load(plan, cluster.folder / "load" / NAME, look)

    assert result.never_started == 0
    assert result.failures == {}
    low = latencies_of(window for window in result.windows if window.elapsed < timedelta(seconds=3))
    high = latencies_of(window for window in result.windows if window.elapsed > timedelta(seconds=10))
    assert low.p50 is not None
    assert high.p50 is not None
    # 40 users share one core that needs 50 ms a request: each waits for the other 39.
    assert high.p50 > timedelta(seconds=1.2)
    assert high.p50 > 3 * low.p50
    assert max(figures) == 1000
    assert all(window.rps < 25 for window in result.windows if window.users == plan.users)
