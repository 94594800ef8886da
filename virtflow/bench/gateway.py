"""What the gateway adds: the same requests through it and straight at the kube-apiserver, in turns, in one run.

A virtual machine that does not run is created and got: a write with everything a write costs here, and a read that
costs next to nothing, where the gateway's share is largest. One client plays all callers, the same for both doors; it
has prepared whatever it can, because it shares the cores with what is measured.
"""

import asyncio
import ssl
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
import orjson
import yaml

from clusters.endpoints import Endpoints
from virtflow.bench.bare import TOKEN_LIFETIME, BareClient
from virtflow.bench.figures import Figure, Figures, percentile
from virtflow.bench.harness import machine_manifest
from virtflow.kube import Object
from virtflow.kube.resources import VMS
from virtflow.terminal import phase
from workflows.tenant_models import Tenant

__all__ = ["measure_gateway"]

ALONE, CLIENTS = 1, 20
MACHINES = {ALONE: 40, CLIENTS: 200}
"""By the number of clients: so many are created, and got, at each door in each round."""


@dataclass
class Door:
    """One way to the kube-apiserver, with a token that is good there."""

    name: str
    url: str
    token: str
    http: aiohttp.ClientSession
    machine: Object
    created: list[float] = field(default_factory=list)
    got: list[float] = field(default_factory=list)
    """Milliseconds, of each request."""
    a_second: list[float] = field(default_factory=list)
    """Requests, of each round."""

    async def create_and_get(self, names: Sequence[str], clients: int) -> None:
        """All of them, by so many clients, each of which waits for its answer."""
        waiting = iter(names)

        async def client() -> None:
            for name in waiting:
                self.created.append(await self._timed("POST", self.url, self._body(name), 201))
                self.got.append(await self._timed("GET", f"{self.url}/{name}", None, 200))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        self.a_second.append(2 * len(names) / (time.perf_counter() - began))

    async def _timed(self, method: str, url: str, body: bytes | None, code: int) -> float:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        began = time.perf_counter()
        async with self.http.request(method, url, data=body, headers=headers) as answer:
            text = await answer.read()
        took = time.perf_counter() - began
        assert answer.status == code, text
        return took * 1000

    def _body(self, name: str) -> bytes:
        return orjson.dumps({**self.machine, "metadata": {"name": name}})

    def forget(self) -> None:
        for values in (self.created, self.got, self.a_second):
            values.clear()

    def summary(self) -> Object:
        figures: Object = {"requests/s": self.a_second}
        for what, values in (("create", self.created), ("get", self.got)):
            figures |= {f"{what} P50": percentile(values, 50), f"{what} P99": percentile(values, 99)}
        return figures


async def measure_gateway(
    bare: BareClient, endpoints: Endpoints, figures: Figures, tenant: Tenant, rounds: int
) -> None:
    """Add the figures, for one client and for many."""
    gateway_trust = ssl.create_default_context(cafile=str(endpoints.ca_cert))
    server, server_trust = _apiserver(endpoints)
    async with _session(gateway_trust) as through, _session(server_trust) as straight:
        direct_token = await bare.kube.create_token(tenant.namespace, tenant.user, TOKEN_LIFETIME)
        gateway_url, machine = f"{endpoints.gateway_url}/virtualmachines", _halted_machine()
        gateway = Door("gateway", gateway_url, await bare.token_of(tenant), through, machine)
        direct = Door("direct", server + VMS.path(tenant.namespace), direct_token, straight, machine)
        for clients, count in MACHINES.items():
            with phase(f"create and get, {clients} at a time, through the gateway and past it, {rounds} times"):
                await _rounds(bare, (gateway, direct), tenant, clients, count, rounds)
            _report(figures, gateway, direct, clients)


async def _rounds(
    bare: BareClient, doors: tuple[Door, Door], tenant: Tenant, clients: int, count: int, rounds: int
) -> None:
    # The first one warms up connections and caches at both, and is not counted.
    for number in range(rounds + 1):
        for door in doors if number % 2 else reversed(doors):
            names = [f"{door.name}-{clients}-{number}-{each:04}" for each in range(count)]
            await door.create_and_get(names, clients)
            await bare.kube.delete_all(VMS, tenant.namespace)
            for name in names:
                await bare.machines.wait_for(tenant.namespace, name, lambda found: found is None)
        if number == 0:
            for door in doors:
                door.forget()


def _report(figures: Figures, gateway: Door, direct: Door, clients: int) -> None:
    detail = {door.name: door.summary() for door in (gateway, direct)}
    who = "alone" if clients == ALONE else f"{clients} clients"
    for what, through, straight in (
        ("create", gateway.created, direct.created),
        ("get", gateway.got, direct.got),
    ):
        more = percentile(through, 50) - percentile(straight, 50)
        goal = 5 if clients == ALONE else None
        figures.add(
            Figure(f"the gateway's share of a {what}, {who}, P50", more, "ms", goal, n=len(through), detail=detail)
        )
    if clients != ALONE:
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(gateway.a_second, direct.a_second, strict=True)
        )
        title = f"create and get, {who}: throughput, gateway / direct"
        figures.add(Figure(title, ratio, "", 0.6, at_least=True, n=len(gateway.a_second), detail=detail))
    for door in (gateway, direct):
        door.forget()


def _apiserver(endpoints: Endpoints) -> tuple[str, ssl.SSLContext]:
    """Its address and who vouches for it, as the administrator's kubeconfig says."""
    [cluster] = yaml.safe_load(endpoints.kubeconfig.read_text())["clusters"]
    server: str = cluster["cluster"]["server"]
    return server, ssl.create_default_context(cafile=cluster["cluster"]["certificate-authority"])


def _session(trust: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, limit=CLIENTS))


def _halted_machine() -> Object:
    machine: Object = yaml.load(machine_manifest("vm"), Loader=yaml.CSafeLoader)
    machine["spec"]["runStrategy"] = "Halted"
    return machine
