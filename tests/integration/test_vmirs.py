"""A VirtualMachineInstanceReplicaSet's life on a running cluster: 3, to 5, to 2, a member lost, deleted."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.support import Tenant, make_template, tenant_on
from virtflow.kube import Object
from virtflow.kube.resources import PODS, VMIRS, VMIS

pytestmark = pytest.mark.anyio
NAME = "test-vmirs"


@pytest.fixture
async def tenant(kubeconfig: Path) -> AsyncIterator[Tenant]:
    async with tenant_on(kubeconfig) as tenant:
        yield tenant


def uids(objects: list[Object]) -> set[str]:
    return {obj["metadata"]["uid"] for obj in objects}


def has(tenant: Tenant, count: int) -> bool:
    """Whether there are just so many instances, ready, each with its pod, and the set says so."""
    instances, pods = tenant.all(VMIS), tenant.all(PODS)
    status = (tenant.get(VMIRS, NAME) or {}).get("status", {})
    return (
        len(instances) == len(pods) == count
        and {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods} == uids(instances)
        and all(vmi["status"]["phase"] == "Running" for vmi in instances)
        and status.get("replicas") == status.get("readyReplicas") == count
    )


async def create_set(tenant: Tenant, replicas: int) -> None:
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "scale"}},
        "template": make_template("scale"),
    }
    vmirs = {"metadata": {"name": NAME, "namespace": tenant.namespace}, "spec": spec}
    await tenant.kube.create(VMIRS, vmirs, tenant.namespace)
    await tenant.until(lambda: has(tenant, replicas))


async def scale(tenant: Tenant, replicas: int) -> None:
    patch = {"spec": {"replicas": replicas}}
    await tenant.kube.patch(VMIRS, NAME, patch, tenant.namespace, subresource="scale")
    await tenant.until(lambda: has(tenant, replicas))


async def test_it_follows_its_scale_out_and_in(tenant: Tenant) -> None:
    await create_set(tenant, 3)
    vmirs, first = tenant.get(VMIRS, NAME), uids(tenant.all(VMIS))
    assert vmirs is not None
    assert vmirs["status"]["labelSelector"] == "app=scale"
    for vmi in tenant.all(VMIS):
        assert vmi["metadata"]["name"].startswith(NAME)
        assert vmi["metadata"]["ownerReferences"][0]["uid"] == vmirs["metadata"]["uid"]
    await scale(tenant, 5)
    assert first < uids(tenant.all(VMIS))
    of_five = uids(tenant.all(VMIS))
    await scale(tenant, 2)
    assert uids(tenant.all(VMIS)) < of_five


async def test_a_lost_member_is_replaced(tenant: Tenant) -> None:
    await create_set(tenant, 2)
    before = uids(tenant.all(VMIS))
    lost = tenant.all(VMIS)[0]["metadata"]
    await tenant.kube.delete(VMIS, lost["name"], tenant.namespace)
    await tenant.until(lambda: lost["uid"] not in uids(tenant.all(VMIS)) and has(tenant, 2))
    assert len(before & uids(tenant.all(VMIS))) == 1


async def test_a_member_without_its_pod_is_replaced(tenant: Tenant) -> None:
    await create_set(tenant, 1)
    lost = tenant.all(VMIS)[0]["metadata"]
    await tenant.kube.delete(PODS, tenant.all(PODS)[0]["metadata"]["name"], tenant.namespace)
    await tenant.until(lambda: lost["uid"] not in uids(tenant.all(VMIS)) and has(tenant, 1))
    assert tenant.all(VMIS)[0]["metadata"]["name"] != lost["name"]


async def test_a_deleted_set_leaves_nothing(tenant: Tenant) -> None:
    await create_set(tenant, 2)
    await tenant.kube.delete(VMIRS, NAME, tenant.namespace)
    await tenant.until(lambda: not any(map(tenant.all, (VMIRS, VMIS, PODS))))
    assert tenant.get(VMIRS, NAME) is None
