"""What the tests against a running cluster share: a namespace each, live caches of it, and waits in one call."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Self

import anyio

from virtflow.kube import Informer, KubeClient, Object, Resource
from virtflow.kube.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS, VMIRS, VMIS, VMS

__all__ = ["PATIENCE", "Tenant", "make_template", "tenant_on", "uid_of"]

PATIENCE = timedelta(seconds=60)


class Tenant:
    """One namespace, and what is in it as it changes."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self._informers = {
            resource: Informer(kube, resource, namespace=namespace) for resource in (VMS, VMIS, VMIRS, PODS)
        }
        self.changes = 0
        """How many were seen of what is in the namespace."""
        self._stack = AsyncExitStack()
        self._changed = anyio.Event()
        for informer in self._informers.values():
            informer.listen(self._wake)

    async def __aenter__(self) -> Self:
        for informer in self._informers.values():
            await self._stack.enter_async_context(informer.running())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def all(self, resource: Resource) -> list[Object]:
        return list(self._informers[resource].items())

    def get(self, resource: Resource, name: str) -> Object | None:
        return self._informers[resource].get(self.namespace, name)

    def observe(self, resource: Resource, obj: Object) -> None:
        self._informers[resource].observe(obj)

    async def until(self, holds: Callable[[], bool], within: timedelta = PATIENCE) -> None:
        """Wait for something to hold of what is in the namespace. Raises `TimeoutError` with what there is."""
        with anyio.move_on_after(within.total_seconds()):
            while not holds():
                self._changed = anyio.Event()
                await self._changed.wait()
            return
        there = {
            resource.plural: {obj["metadata"]["name"]: obj.get("status") for obj in informer.items()}
            for resource, informer in self._informers.items()
        }
        raise TimeoutError(f"not within {within}; in the namespace are {there}")

    def _wake(self, *_: Object | None) -> None:
        self.changes += 1
        self._changed.set()


def uid_of(obj: Object) -> str:
    uid: str = obj["metadata"]["uid"]
    return uid


@asynccontextmanager
async def tenant_on(kubeconfig: Path) -> AsyncIterator[Tenant]:
    """A namespace of its own for the block, which must leave it empty of VMs to leave it quickly."""
    namespace = f"it-{uuid.uuid4().hex[:8]}"
    async with await KubeClient.connect(kubeconfig) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": namespace}})
        try:
            accounts = Informer(kube, SERVICE_ACCOUNTS, namespace=namespace)
            async with accounts.running():
                # Pods made before the namespace has its default account are refused.
                with anyio.fail_after(PATIENCE.total_seconds()):
                    await accounts.wait_for(namespace, "default", lambda account: account is not None)
            async with Tenant(kube, namespace) as tenant:
                yield tenant
        finally:
            await kube.delete(NAMESPACES, namespace)


def make_template(app: str) -> Object:
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {
            "domain": {
                "cpu": {"cores": 1},
                "devices": {"disks": [{"name": "disk0", "disk": {"bus": "virtio"}}]},
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            },
            "volumes": [{"name": "disk0", "containerDisk": {"image": "registry.example/ubuntu:22.04"}}],
        },
    }
