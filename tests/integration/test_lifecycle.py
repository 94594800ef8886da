"""A VirtualMachine's life on a running cluster: create, stop, start, loss of its pod, failed starts, delete.

It covers what virt-controller and virt-handler do. Admission, run strategies and nodes have tests of their own.
"""

import asyncio
from collections.abc import Callable

import pytest

from tests.integration.machines import (
    NAME,
    create_vm,
    edit,
    instance,
    is_running,
    is_stopped,
    only,
    pod,
    set_strategy,
    started,
    told,
)
from tests.integration.support import Tenant, make_template, uid_of
from virtflow.kube import Informer
from virtflow.kube.resources import CONTROLLER_REVISIONS, NAMESPACES, PODS, VMIS, VMS

pytestmark = pytest.mark.anyio


async def test_a_created_vm_runs_in_an_instance_and_a_pod_of_its_own(tenant: Tenant) -> None:
    await started(tenant)
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
    first = await started(tenant)
    await set_strategy(tenant, "Halted")
    await tenant.until(lambda: is_stopped(tenant))
    await set_strategy(tenant, "Always")
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)))
    assert told(tenant)["observedGeneration"] == told(tenant)["desiredGeneration"] == 3


async def test_a_vm_that_loses_its_pod_comes_back(tenant: Tenant) -> None:
    first = await started(tenant)
    lost = pod(tenant)
    await tenant.kube.delete(PODS, lost["metadata"]["name"], tenant.namespace)
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)))
    assert uid_of(pod(tenant)) != uid_of(lost)


async def test_starts_that_fail_are_put_off_ever_longer(tenant: Tenant) -> None:
    await create_vm(tenant, nodeSelector={"kubernetes.io/hostname": "none"})

    async def fail_start(number: int) -> None:
        await tenant.until(lambda: told(tenant).get("printableStatus") == "ErrorUnschedulable")
        await tenant.kube.delete(PODS, pod(tenant)["metadata"]["name"], tenant.namespace)
        await tenant.until(lambda: count() == number and told(tenant)["printableStatus"] == "CrashLoopBackOff")
        await tenant.until(lambda: not tenant.all(VMIS))

    def count() -> int:
        failures: int = told(tenant).get("startFailure", {}).get("consecutiveFailCount", 0)
        return failures

    await fail_start(1)
    assert told(tenant)["printableStatus"] == "CrashLoopBackOff"
    await fail_start(2)
    await edit(tenant, {"runStrategy": "Halted"})
    await tenant.until(lambda: is_stopped(tenant) and "startFailure" not in told(tenant))


async def test_a_deleted_vm_leaves_nothing(tenant: Tenant) -> None:
    await started(tenant)
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
async def test_a_vm_deleted_in_the_middle_of_its_start_leaves_nothing(tenant: Tenant, moment: str) -> None:
    await create_vm(tenant)
    await tenant.until(lambda: MOMENTS[moment](tenant))
    await tenant.kube.delete(VMS, NAME, tenant.namespace)
    await tenant.until(lambda: tenant.get(VMS, NAME) is None)
    # A VM deleted before virt-controller marked it is gone at once, and an instance may still come after it.
    await garbage_is_collected(tenant)
    await tenant.until(lambda: not any(map(tenant.all, (VMIS, PODS))))


async def garbage_is_collected(tenant: Tenant) -> None:
    """Wait for the garbage collector to know of instances: it looks for new kinds of object every 30 s."""
    owner = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "absent", "uid": "absent"}
    vmi = {"metadata": {"name": "garbage", "ownerReferences": [owner]}, "spec": make_template("test")["spec"]}
    await tenant.kube.create(VMIS, vmi, tenant.namespace)
    instances = Informer(tenant.kube, VMIS, namespace=tenant.namespace)
    async with instances.running(), asyncio.timeout(60):
        await instances.wait_for(tenant.namespace, "garbage", lambda found: found is None)


async def test_an_orphaning_delete_leaves_the_instance_to_a_vm_of_the_same_name(tenant: Tenant) -> None:
    await garbage_is_collected(tenant)
    left = await started(tenant)
    await tenant.kube.delete(VMS, NAME, tenant.namespace, propagation="Orphan")
    await tenant.until(lambda: tenant.get(VMS, NAME) is None)
    found = await tenant.kube.get(VMIS, NAME, tenant.namespace)
    assert (uid_of(found), found["status"]["phase"]) == (uid_of(left), "Running")
    assert "ownerReferences" not in found["metadata"]
    await create_vm(tenant)
    await tenant.until(lambda: is_running(tenant))
    assert uid_of(instance(tenant)) == uid_of(left)
    owner = only(instance(tenant)["metadata"]["ownerReferences"])
    assert (owner["uid"], owner["controller"]) == (uid_of(only(tenant.all(VMS))), True)
    await set_strategy(tenant, "Halted")
    await tenant.until(lambda: is_stopped(tenant))


async def test_an_instance_that_was_left_behind_can_be_deleted(tenant: Tenant) -> None:
    await garbage_is_collected(tenant)
    await started(tenant)
    await tenant.kube.delete(VMS, NAME, tenant.namespace, propagation="Orphan")
    await tenant.until(lambda: tenant.get(VMS, NAME) is None)
    await tenant.kube.delete(VMIS, NAME, tenant.namespace)
    await tenant.until(lambda: not any(map(tenant.all, (VMIS, PODS))))
    assert await tenant.kube.list(VMIS, tenant.namespace) == []


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_vm_deleted_with_its_namespace_leaves_no_finalizer_behind(tenant: Tenant, moment: str) -> None:
    await create_vm(tenant)
    await tenant.until(lambda: MOMENTS[moment](tenant))
    await tenant.kube.delete_all(VMS, tenant.namespace)
    await tenant.kube.delete(NAMESPACES, tenant.namespace)
    await tenant.until(lambda: not any(tenant.all(resource) for resource in (VMS, VMIS, PODS)))
    assert await tenant.kube.list(VMIS, tenant.namespace) == []
