"""Whether the programs of a local cluster answer yet."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
from temporalio.client import Client
from temporalio.service import RPCError

from clusters.endpoints import ClusterError, Endpoints
from clusters.local.kubernetes import Kubernetes
from clusters.supervisor import Supervisor
from virtflow.kube import NO_ANSWER, KubeClient, KubeError
from virtflow.kube.resources import API_SERVICES, NODE_METRICS

__all__ = ["await_answers", "await_apiserver"]

LIMIT = timedelta(seconds=90)
POLL = timedelta(milliseconds=100)
ANSWER_LIMIT = aiohttp.ClientTimeout(total=5)

Probes = dict[str, Callable[[], Awaitable[bool]]]


async def await_apiserver(kubernetes: Kubernetes, supervisor: Supervisor, show: Callable[[str], None]) -> None:
    """Until it is ready for others. Raises ClusterError with the last lines of what keeps dying instead."""
    async with _client(kubernetes) as http:
        probes: Probes = {"kube-apiserver": lambda: _answers(http, f"{kubernetes.server}/readyz")}
        await _await(probes, lambda: supervisor.check("etcd", "kube-apiserver") and [], show)


async def await_answers(
    kubernetes: Kubernetes, endpoints: Endpoints, supervisor: Supervisor, show: Callable[[str], None]
) -> None:
    """Until every program runs, and those that serve answer. Raises ClusterError, as above."""
    async with _client(kubernetes) as http, await KubeClient.connect(kubernetes.kubeconfig) as kube:
        probes: Probes = {
            "virt-api": lambda: _answers(http, f"https://127.0.0.1:{kubernetes.ports.virt_api}/healthz"),
            "virt-handler": lambda: _listens(kubernetes.ports.virt_handler),
            "the kube-apiserver's aggregator": lambda: _all_apis_are_available(kube),
            "gateway": lambda: _answers(http, f"{endpoints.gateway_url}/readyz"),
            "guests": lambda: _answers(http, f"{endpoints.guests_url}/healthz"),
            "metrics-server": lambda: _metrics_server_answers(kube),
            "temporal": lambda: _temporal_answers(endpoints.temporal_address),
        }
        await _await(probes, supervisor.check, show)


async def _await(probes: Probes, not_running: Callable[[], list[str]], show: Callable[[str], None]) -> None:
    deadline = time.monotonic() + LIMIT.total_seconds()
    silent = probes
    while True:
        # Whoever has answered is not asked again: the programs need the CPU to start.
        silent = {name: answers for name, answers in silent.items() if not await answers()}
        waiting = list(dict.fromkeys([*silent, *not_running()]))
        if not waiting:
            return
        show(f"for {', '.join(waiting)}")
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{', '.join(waiting)} did not answer within {LIMIT.total_seconds():.0f} s. "
                f"`virtflow status` shows what runs, `virtflow logs {waiting[0]}` what it says."
            )
        await asyncio.sleep(POLL.total_seconds())


@asynccontextmanager
async def _client(kubernetes: Kubernetes) -> AsyncIterator[aiohttp.ClientSession]:
    trust = ssl.create_default_context(cafile=str(kubernetes.ca_cert))
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(connector=connector, timeout=ANSWER_LIMIT) as http:
        yield http


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except NO_ANSWER:
        return False


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _all_apis_are_available(kube: KubeClient) -> bool:
    """Whether the kube-apiserver has found every API that is served elsewhere: metrics-server's and virt-api's."""
    try:
        services = await kube.list(API_SERVICES)
    except (KubeError, *NO_ANSWER):
        return False
    return all(
        any(
            each["type"] == "Available" and each["status"] == "True"
            for each in service["status"].get("conditions", ())
        )
        for service in services
    )


async def _metrics_server_answers(kube: KubeClient) -> bool:
    try:
        await kube.list(NODE_METRICS)
    except (KubeError, *NO_ANSWER):
        return False
    return True


async def _temporal_answers(address: str) -> bool:
    try:
        client = await Client.connect(address)
        return await client.service_client.check_health()
    except (RPCError, RuntimeError):
        return False
