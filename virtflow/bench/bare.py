"""The bare client: what the harness does, by a script without durability, evidence or retries.

The same requests to the same gateway and apiserver, one shared watch, everything at once. What it takes is what
the cluster takes; the harness is held against it.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
import yaml

from activities.tenants import Tenants
from activities.tokens import Tokens
from clusters.endpoints import Endpoints
from clusters.gateway import AUDIENCE
from virtflow.kube import Informer, KubeClient, Object
from virtflow.kube.resources import NAMESPACES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, VMS
from workflows.tenant_models import Tenant, TenantOrder

__all__ = ["BareClient"]

TOKEN_LIFETIME = timedelta(minutes=30)


@dataclass(frozen=True)
class BareClient:
    """Acts as the platform's administrator on the cluster, and as tenants through the gateway."""

    endpoints: Endpoints
    kube: KubeClient
    http: aiohttp.ClientSession
    namespaces: Informer
    accounts: Informer
    quotas: Informer
    machines: Informer

    @classmethod
    @asynccontextmanager
    async def connected(cls, endpoints: Endpoints) -> AsyncIterator["BareClient"]:
        trust = ssl.create_default_context(cafile=str(endpoints.ca_cert))
        async with (
            await KubeClient.connect(endpoints.kubeconfig, agent="virtflow-bench") as kube,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust, limit=100)) as http,
        ):
            namespaces, accounts, quotas, machines = (
                Informer(kube, each) for each in (NAMESPACES, SERVICE_ACCOUNTS, RESOURCE_QUOTAS, VMS)
            )
            async with namespaces.running(), accounts.running(), quotas.running(), machines.running():
                yield cls(endpoints, kube, http, namespaces, accounts, quotas, machines)

    async def create_tenant(self, order: TenantOrder) -> Tenant:
        # As the activity does: what a tenant is made of is no matter of the harness' speed.
        tokens = Tokens(self.kube)
        return await Tenants(self.kube, tokens, self.namespaces, self.accounts, self.quotas).make(order)

    async def token_of(self, tenant: Tenant) -> str:
        return await self.kube.create_token(tenant.namespace, tenant.user, TOKEN_LIFETIME, audiences=[AUDIENCE])

    async def run_machine(self, token: str, manifest: str, name: str) -> float:
        """Create a virtual machine through the gateway; return `time.monotonic()` of its Running."""
        body: Object = yaml.load(manifest, Loader=yaml.CSafeLoader)
        body["metadata"]["name"] = name
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.post(
            f"{self.endpoints.gateway_url}/virtualmachines", json=body, headers=headers
        ) as answer:
            answer.raise_for_status()
            namespace = (await answer.json())["metadata"]["namespace"]
        await self.machines.wait_for(namespace, name, _runs)
        return time.monotonic()

    async def delete_tenants(self, orders: Sequence[TenantOrder]) -> None:
        await asyncio.gather(*(self._delete(order.namespace) for order in orders))

    async def _delete(self, namespace: str) -> None:
        await self.kube.delete(NAMESPACES, namespace)
        await self.kube.delete_all(VMS, namespace)
        await self.namespaces.wait_for("", namespace, lambda found: found is None)


def _runs(machine: Object | None) -> bool:
    status = (machine or {}).get("status", {})
    return status.get("printableStatus") == "Running" and bool(status.get("ready"))
