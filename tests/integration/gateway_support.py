"""A tenant at the real gateway: a namespace, an account with a role in it, and that account's HTTP client."""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx

from clusters.gateway import AUDIENCE, tenant_binding
from virtflow.kube import KubeClient, Object
from virtflow.kube.resources import NAMESPACES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, VMS

__all__ = [
    "ACCOUNT",
    "PATIENCE",
    "TOKEN_LIFETIME",
    "Tenant",
    "client",
    "eventually",
    "gateway_tenant",
    "log_entries",
    "subject",
    "vm",
]

ACCOUNT = "gateway-test-user"
TOKEN_LIFETIME = timedelta(minutes=10)
PATIENCE = timedelta(seconds=40)
"""More than the 20 s for which the kube-apiserver and the gateway together keep a good token's review."""


@dataclass
class Tenant:
    """`http` is the account's at the gateway, `kube` the administrator's at the kube-apiserver."""

    namespace: str
    http: httpx.AsyncClient
    kube: KubeClient

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"


@asynccontextmanager
async def gateway_tenant(
    kubeconfig: Path, gateway_url: str, ca_cert: Path, rules: list[Object]
) -> AsyncIterator[Tenant]:
    """A tenant for the block, whose account may do in its namespace what the Role's `rules` say."""
    namespace = f"gateway-{uuid.uuid4().hex[:8]}"
    role_ref = {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": "operator"}
    async with await KubeClient.connect(kubeconfig) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": namespace}})
        try:
            await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": ACCOUNT}}, namespace)
            await kube.create(ROLES, {"metadata": {"name": "operator"}, "rules": rules}, namespace)
            await kube.create(ROLE_BINDINGS, tenant_binding({}), namespace)
            binding = {"metadata": {"name": "operator"}, "roleRef": role_ref, "subjects": [subject(namespace)]}
            await kube.create(ROLE_BINDINGS, binding, namespace)
            token = await kube.create_token(namespace, ACCOUNT, TOKEN_LIFETIME, audiences=[AUDIENCE])
            async with client(gateway_url, ca_cert, token) as http:
                yield Tenant(namespace, http, kube)
        finally:
            await kube.delete(NAMESPACES, namespace)


def subject(namespace: str) -> Object:
    """The account, as a binding names it."""
    return {"kind": SERVICE_ACCOUNTS.kind, "namespace": namespace, "name": ACCOUNT}


def client(gateway_url: str, ca_cert: Path, token: str | None) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=str(ca_cert))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=gateway_url, verify=context, headers=headers, trust_env=False, timeout=30)


def vm(name: str = "test-vm", **spec: Any) -> Object:
    domain = {
        "cpu": {"cores": 1},
        "resources": {"requests": {"memory": "1Gi", "cpu": "1"}},
        "devices": {"disks": [{"name": "bootdisk", "disk": {"bus": "virtio"}}]},
    }
    volumes = [{"name": "bootdisk", "containerDisk": {"image": "registry.example/ubuntu:22.04"}}]
    template = {"metadata": {"labels": {"app": "test"}}, "spec": {"domain": domain, "volumes": volumes}}
    return {
        "apiVersion": VMS.api_version,
        "kind": VMS.kind,
        "metadata": {"name": name, "labels": {"app": "test"}},
        "spec": {"runStrategy": "Halted", "template": template, **spec},
    }


T = TypeVar("T")


async def eventually(attempt: Callable[[], Awaitable[T | None]]) -> T:
    """The first thing `attempt` returns that is not None."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            if (result := await attempt()) is not None:
                return result
            await asyncio.sleep(0.1)


async def log_entries(log: Path, key: str, prefix: str, count: int) -> list[Object]:
    """Entries of a JSON log whose `key` begins so, once there are `count`: the writers are behind the answers."""

    async def attempt() -> list[Object] | None:
        text = await asyncio.to_thread(log.read_text)
        entries = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        found = [entry for entry in entries if entry[key].startswith(prefix)]
        return found if len(found) >= count else None

    return await eventually(attempt)
