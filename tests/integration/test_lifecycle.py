"""A VirtualMachine's life on a running cluster: create, stop, start, loss of its pod, delete.

It covers what virt-controller and virt-handler do. Admission and quotas have tests of their own.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.integration.support import Tenant, make_template, tenant_on
from virtflow.kube import Object
from virtflow.kube.resources import CONTROLLER_REVISIONS, NAMESPACES, PODS, VMIS, VMS

pytestmark = pytest.mark.anyio
NAME = "test-vm"


@pytest.fixture
async def tenant(kubeconfig: Path) -> AsyncIterator[Tenant]:
    async with tenant_on(kubeconfig) as tenant:
        yield tenant


async def create_vm(tenant: Tenant) -> None:
    spec = {"runStrategy": "Always", "template": make_template("test")}
    vm = {"metadata": {"name": NAME, "namespace": tenant.namespace}, "spec": spec}
    await tenant.kube.create(VMS, vm, tenant.namespace)
    await tenant.until(lambda: is_running(tenant))


def told(tenant: Tenant) -> Object:
    status: Object = (tenant.get(VMS, NAME) or {}).get("status", {})
    return status


def is_running(tenant: Tenant) -> bool:
    return told(tenant).get("printableStatus") == "Running" and told(tenant).get("ready") is True


def is_stopped(tenant: Tenant) -> bool:
    gone = not tenant.all(VMIS) and not tenant.all(PODS)
    return gone and told(tenant).get("printableStatus") == "Stopped" and "created" not in told(tenant)


def only(objects: list[Object]) -> Object:
    (obj,) = objects
    return obj


async def set_strategy(tenant: Tenant, strategy: str) -> None:
    await tenant.kube.patch(VMS, NAME, {"spec": {"runStrategy": strategy}}, tenant.namespace)


async def test_a_created_vm_runs_in_an_instance_and_a_pod_of_its_own(tenant: Tenant) -> None:
    await create_vm(tenant)
    vm, vmi, pod = (only(tenant.all(resource)) for resource in (VMS, VMIS, PODS))
    assert vmi["metadata"]["name"] == NAME
    assert vmi["metadata"]["ownerReferences"][0]["uid"] == vm["metadata"]["uid"]
    assert pod["metadata"]["ownerReferences"][0]["uid"] == vmi["metadata"]["uid"]
    assert pod["metadata"]["labels"]["kubevirt.io/created-by"] == vmi["metadata"]["uid"]
    assert vmi["status"]["nodeName"] == pod["spec"]["nodeName"]
    phases = [each["phase"] for each in vmi["status"]["phaseTransitionTimestamps"]]
    assert phases == ["Pending", "Scheduling", "Scheduled", "Running"]
    revision = await tenant.kube.get(
        CONTROLLER_REVISIONS, vmi["status"]["virtualMachineRevisionName"], tenant.namespace
    )
    assert revision["data"]["spec"]["template"] == vm["spec"]["template"]


async def test_a_stopped_vm_has_no_instance_and_a_started_one_a_new_one(tenant: Tenant) -> None:
    await create_vm(tenant)
    first = only(tenant.all(VMIS))["metadata"]["uid"]
    await set_strategy(tenant, "Halted")
    await tenant.until(lambda: is_stopped(tenant))
    await set_strategy(tenant, "Always")
    await tenant.until(lambda: is_running(tenant))
    assert only(tenant.all(VMIS))["metadata"]["uid"] != first
    assert told(tenant)["observedGeneration"] == told(tenant)["desiredGeneration"] == 3


async def test_a_vm_that_loses_its_pod_comes_back(tenant: Tenant) -> None:
    await create_vm(tenant)
    pod, vmi = only(tenant.all(PODS)), only(tenant.all(VMIS))
    await tenant.kube.delete(PODS, pod["metadata"]["name"], tenant.namespace)

    def is_back() -> bool:
        uids = [each["metadata"]["uid"] for each in (*tenant.all(PODS), *tenant.all(VMIS))]
        replaced = not {pod["metadata"]["uid"], vmi["metadata"]["uid"]} & set(uids)
        return replaced and is_running(tenant)

    await tenant.until(is_back)
    assert len(tenant.all(PODS)) == 1


async def test_a_deleted_vm_leaves_nothing(tenant: Tenant) -> None:
    await create_vm(tenant)
    await tenant.kube.delete(VMS, NAME, tenant.namespace)
    await tenant.until(lambda: not any(map(tenant.all, (VMS, VMIS, PODS))))
    assert tenant.get(VMS, NAME) is None


MOMENTS: dict[str, Callable[[Tenant], bool]] = {
    "at once": lambda _: True,
    "with its instance": lambda tenant: bool(tenant.all(VMIS)),
    "with its pod": lambda tenant: bool(tenant.all(PODS)),
    "scheduled": lambda tenant: any("nodeName" in pod["spec"] for pod in tenant.all(PODS)),
    "running": is_running,
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_vm_deleted_with_its_namespace_leaves_no_finalizer_behind(tenant: Tenant, moment: str) -> None:
    spec = {"runStrategy": "Always", "template": make_template("test")}
    await tenant.kube.create(VMS, {"metadata": {"name": NAME}, "spec": spec}, tenant.namespace)
    await tenant.until(lambda: MOMENTS[moment](tenant))
    await tenant.kube.delete_all(VMS, tenant.namespace)
    await tenant.kube.delete(NAMESPACES, tenant.namespace)
    await tenant.until(lambda: not any(tenant.all(resource) for resource in (VMS, VMIS, PODS)))
    assert await tenant.kube.list(VMIS, tenant.namespace) == []
