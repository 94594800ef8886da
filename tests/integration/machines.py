"""One VirtualMachine in a tenant's namespace: made, told what to do, and looked at as a client sees it."""

import asyncio
from typing import Any

import httpx

from tests.integration.support import Tenant, make_template, uid_of
from virtflow.kube import Informer, KubeClient, Object
from virtflow.kube.resources import EVENTS, PODS, VMIS, VMS

__all__ = [
    "NAME",
    "ask",
    "condition_of",
    "create_vm",
    "edit",
    "end_guest",
    "event_saying",
    "instance",
    "is_ended",
    "is_running",
    "is_stopped",
    "only",
    "pod",
    "set_strategy",
    "started",
    "told",
]

NAME = "test-vm"


async def create_vm(tenant: Tenant, strategy: str = "Always", **template_spec: Any) -> None:
    template = make_template("test")
    template["spec"] |= template_spec
    spec = {"runStrategy": strategy, "template": template}
    # Observed, so that nobody takes a watch that is late for a VM that is gone.
    tenant.observe(VMS, await tenant.kube.create(VMS, {"metadata": {"name": NAME}, "spec": spec}, tenant.namespace))


async def started(tenant: Tenant, strategy: str = "Always", **template_spec: Any) -> Object:
    """The instance of a new VM, once it runs."""
    await create_vm(tenant, strategy, **template_spec)
    if strategy == "Manual":
        await ask(tenant, {"action": "Start"})
    # Each kind has a watch of its own, and may be later than what it led to.
    await tenant.until(lambda: is_running(tenant) and len(tenant.all(PODS)) == 1)
    return instance(tenant)


async def edit(tenant: Tenant, spec: Object) -> None:
    await tenant.kube.patch(VMS, NAME, {"spec": spec}, tenant.namespace)


async def set_strategy(tenant: Tenant, strategy: str) -> None:
    await edit(tenant, {"runStrategy": strategy})


async def ask(tenant: Tenant, *requests: Object) -> None:
    """What virt-api writes for virtctl's start, stop and restart."""
    patch = {"status": {"stateChangeRequests": list(requests)}}
    await tenant.kube.patch(VMS, NAME, patch, tenant.namespace, subresource="status")


async def end_guest(tenant: Tenant, guests_url: str, how: str) -> None:
    """Tell the guest to `poweroff` or to `crash`."""
    path = f"/namespaces/{tenant.namespace}/virtualmachineinstances/{NAME}/{how}"
    async with httpx.AsyncClient(base_url=guests_url) as client:
        (await client.post(path)).raise_for_status()


async def event_saying(kube: KubeClient, namespace: str, message: str) -> Object:
    """Wait for it: events are written when what they tell of is done."""
    events = Informer(kube, EVENTS, namespace=namespace)
    found: asyncio.Queue[Object] = asyncio.Queue()
    events.listen(lambda _, new: found.put_nowait(new) if new is not None and new["message"] == message else None)
    async with events.running(), asyncio.timeout(60):
        return await found.get()


def told(tenant: Tenant) -> Object:
    """The VM's status."""
    status: Object = (tenant.get(VMS, NAME) or {}).get("status", {})
    return status


def instance(tenant: Tenant) -> Object:
    return only(tenant.all(VMIS))


def pod(tenant: Tenant) -> Object:
    return only(tenant.all(PODS))


def only(objects: list[Object]) -> Object:
    (obj,) = objects
    return obj


def condition_of(obj: Object, kind: str) -> Object:
    """Its status, reason and message; empty if the object has no such condition."""
    for each in obj.get("status", {}).get("conditions", []):
        if each["type"] == kind:
            return {field: each.get(field) for field in ("status", "reason", "message")}
    return {}


def is_running(tenant: Tenant, *, unlike: str | None = None) -> bool:
    """Whether the VM runs, in another instance than that of this uid."""
    is_told = told(tenant).get("printableStatus") == "Running" and told(tenant).get("ready") is True
    instances = tenant.all(VMIS)
    phases = [vmi.get("status", {}).get("phase") for vmi in instances]
    return is_told and phases == ["Running"] and uid_of(instances[0]) != unlike


def is_stopped(tenant: Tenant) -> bool:
    gone = not tenant.all(VMIS) and not tenant.all(PODS)
    return gone and told(tenant).get("printableStatus") == "Stopped" and "created" not in told(tenant)


def is_ended(tenant: Tenant, phase: str) -> bool:
    """Whether the VM's instance has come to this end and stays there."""
    phases = [vmi["status"]["phase"] for vmi in tenant.all(VMIS)]
    return phases == [phase] and told(tenant).get("printableStatus") == "Stopped"
