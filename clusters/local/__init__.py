"""The embedded cluster: real Kubernetes as host processes, with stand-ins only where no program can be had.

Two managers, because one knows Kubernetes and the other knows how to keep a process alive: kwokctl (`kwok`)
for etcd, the control plane and the nodes, supervisord (`supervisor`) for all the rest.
"""

import asyncio
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
from temporalio.client import Client
from temporalio.service import RPCError

from clusters.endpoints import ClusterError, Endpoints
from clusters.local.kwok import KwokCluster
from clusters.local.programs import TEMPORAL, WORKER, Ports, create_certificates, install, programs
from clusters.local.supervisor import Supervisor
from clusters.local.toolchain import find_toolchain
from virtflow.errors import InputError
from virtflow.kube import KubeClient, KubeError
from virtflow.kube.resources import NODE_METRICS
from virtflow.settings import Settings
from virtflow.terminal import phase

__all__ = ["ComponentStatus", "LocalCluster"]

READY_LIMIT = timedelta(seconds=90)
POLL = timedelta(milliseconds=200)
ANSWER_LIMIT = aiohttp.ClientTimeout(total=5)
REQUEST_COST = timedelta(milliseconds=50)


@dataclass(frozen=True)
class ComponentStatus:
    """One process of the cluster, for people."""

    name: str
    state: str
    pid: int | None
    log: Path


class LocalCluster:
    """The local cluster of one name. Its state is one folder outside the checkout."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.cluster
        self.folder = settings.state_home.absolute() / settings.cluster
        self._settings = settings
        self._kwok = KwokCluster(self.name, self.folder)
        self._supervisor = Supervisor(self.folder)

    @property
    def _endpoints_file(self) -> Path:
        return self.folder / "endpoints.json"

    def endpoints(self) -> Endpoints:
        """Raises ClusterError when the cluster is not up."""
        return Endpoints.load(self._endpoints_file)

    def is_up(self) -> bool:
        return self._endpoints_file.exists()

    def up(self) -> Endpoints:
        """Bring everything up, or the part of it that is not; return when all of it answers."""
        kwok = self._kwok
        toolchain = find_toolchain(self._settings.toolchain, self._settings.cache_home)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ports = Ports.choose(self.folder / "ports.json")
        endpoints = self._describe(ports)
        with phase("Starting Kubernetes (etcd, control plane, kwok nodes) and Temporal"):
            self._supervisor.configure(programs(kwok, toolchain, ports, endpoints, REQUEST_COST))
            self._supervisor.start(TEMPORAL)
            if kwok.exists():
                kwok.start(toolchain)
            else:
                kwok.create(toolchain)
        with phase("Installing KubeVirt's stand-in, the IAM gateway, metrics-server"):
            create_certificates(kwok)
            asyncio.run(install(kwok, ports, self._settings.nodes))
            endpoints.save(self._endpoints_file)
            self._supervisor.start()
        with phase("Waiting until everything answers") as show:
            asyncio.run(self._wait_ready(endpoints, ports, show))
        return endpoints

    def restart_worker(self) -> None:
        """So that it runs the code of this checkout as it is now."""
        self._supervisor.restart(WORKER)

    def status(self) -> list[ComponentStatus]:
        components = [
            ComponentStatus(name, "RUNNING" if pid else "STOPPED", pid, self._kwok.home / "logs" / f"{name}.log")
            for name, pid in self._kwok.pids().items()
        ]
        return components + [
            ComponentStatus(state.name, state.state, state.pid, self._supervisor.log(state.name))
            for state in self._supervisor.states()
        ]

    def log(self, component: str) -> Path:
        """The log file of a component. Raises InputError, which names the components, if there is none."""
        logs = {status.name: status.log for status in self.status()}
        if component not in logs:
            raise InputError(f"There is no component {component!r}. There are: {', '.join(logs) or 'none'}.")
        if not logs[component].exists():
            raise ClusterError(f"{component} has not written anything yet: there is no {logs[component]}.")
        return logs[component]

    def down(self) -> None:
        """Stop every process and remove the state. A cluster that is not there is fine."""
        if not self.folder.exists():
            return
        self._supervisor.stop()
        self._kwok.delete()
        shutil.rmtree(self.folder)

    def _describe(self, ports: Ports) -> Endpoints:
        return Endpoints(
            name=self.name,
            kubevirt="stand-in (no package registry ships KubeVirt; docs/DEVIATIONS.md says what it models)",
            kubeconfig=self._kwok.kubeconfig,
            ca_cert=self._kwok.ca_cert,
            gateway_url=f"https://127.0.0.1:{ports.gateway}",
            guests_url=f"http://127.0.0.1:{ports.guests}",
            audit_log=self._kwok.audit_log,
            access_log=self.folder / "logs" / "gateway-access.log",
            temporal_address=f"127.0.0.1:{ports.temporal}",
            temporal_ui=f"http://127.0.0.1:{ports.temporal_ui}",
        )

    async def _wait_ready(self, endpoints: Endpoints, ports: Ports, show: Callable[[str], None]) -> None:
        deadline = time.monotonic() + READY_LIMIT.total_seconds()
        trust = ssl.create_default_context(cafile=str(endpoints.ca_cert))
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust), timeout=ANSWER_LIMIT) as http,
            await KubeClient.connect(endpoints.kubeconfig) as kube,
        ):
            silent: dict[str, Callable[[], Awaitable[bool]]] = {
                "virt-api": lambda: _answers(http, f"https://127.0.0.1:{ports.virt_api}/healthz"),
                "gateway": lambda: _answers(http, f"{endpoints.gateway_url}/readyz"),
                "guests": lambda: _answers(http, f"{endpoints.guests_url}/healthz"),
                "metrics-server": lambda: _metrics_server_answers(kube),
                "temporal": lambda: _temporal_answers(endpoints.temporal_address),
            }
            while True:
                # Whoever has answered is not asked again: the programs need the CPU to start.
                silent = {name: answers for name, answers in silent.items() if not await answers()}
                waiting = list(dict.fromkeys([*silent, *self._supervisor.check()]))
                if not waiting:
                    return
                show(f"for {', '.join(waiting)}")
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"{', '.join(waiting)} did not answer within {READY_LIMIT.total_seconds():.0f} s. "
                        f"`virtflow status` shows what runs, `virtflow logs {waiting[0]}` what it says."
                    )
                await asyncio.sleep(POLL.total_seconds())


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


async def _metrics_server_answers(kube: KubeClient) -> bool:
    try:
        await kube.list(NODE_METRICS)
    except (KubeError, aiohttp.ClientError, OSError):
        return False
    return True


async def _temporal_answers(address: str) -> bool:
    try:
        client = await Client.connect(address)
        return await client.service_client.check_health()
    except (RPCError, RuntimeError):
        return False
