"""Tenants on a real cluster: the quota is in force when the tenant is there, and another file is another shape."""

import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.tenants import Tenants
from activities.tokens import Tokens
from virtflow.kube import Informer, KubeClient, KubeError, Resource
from virtflow.kube.resources import (
    LIMIT_RANGES,
    NAMESPACES,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
)
from workflows.tenant_models import PolicyRule, TenantOrder, TenantSpec

pytestmark = pytest.mark.anyio

SECRETS = Resource("", "v1", "secrets", "Secret")
SPEC = TenantSpec(
    ["alice", "bob"],
    [PolicyRule([""], ["pods"], ["get"])],
    {"secrets": "0", "requests.memory": "1024Mi"},
    [{"type": "Container", "default": {"cpu": "2"}}],
)


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig) as kube:
        yield kube


@pytest.fixture
async def tenants(kube: KubeClient) -> AsyncIterator[Tenants]:
    async with contextlib.AsyncExitStack() as stack:
        informers = [Informer(kube, each) for each in (NAMESPACES, SERVICE_ACCOUNTS, RESOURCE_QUOTAS)]
        for informer in informers:
            await stack.enter_async_context(informer.running())
        yield Tenants(kube, Tokens(kube), *informers)


@pytest.fixture
async def order(kube: KubeClient) -> AsyncIterator[TenantOrder]:
    order = TenantOrder("tenant-a", f"tenant-a-{uuid.uuid4().hex[:8]}", {"virtflow.io/run": "test"}, SPEC)
    yield order
    await kube.delete(NAMESPACES, order.namespace)


async def names(kube: KubeClient, resource: Resource, namespace: str) -> list[str]:
    return sorted(each["metadata"]["name"] for each in await kube.list(resource, namespace))


async def test_the_quota_is_in_force_when_the_tenant_is_there(
    kube: KubeClient, tenants: Tenants, order: TenantOrder
) -> None:
    await ActivityEnvironment().run(tenants.create_tenant, order)
    with pytest.raises(KubeError, match="exceeded quota: tenant-a-quota, requested: secrets=1") as refused:
        await kube.create(SECRETS, {"metadata": {"name": "one"}}, order.namespace)
    assert refused.value.code == 403


async def test_the_same_twice_changes_nothing(kube: KubeClient, tenants: Tenants, order: TenantOrder) -> None:
    async def versions() -> list[str]:
        kinds = (SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, RESOURCE_QUOTAS, LIMIT_RANGES)
        found = [each for kind in kinds for each in await kube.list(kind, order.namespace)]
        return [f"{each['metadata']['name']} {each['metadata']['resourceVersion']}" for each in found]

    first = await ActivityEnvironment().run(tenants.create_tenant, order)
    before = await versions()
    assert await ActivityEnvironment().run(tenants.create_tenant, order) == first
    assert await versions() == before
    assert len(before) >= 7


async def test_another_spec_brings_all_to_its_shape(kube: KubeClient, tenants: Tenants, order: TenantOrder) -> None:
    namespace = order.namespace
    await ActivityEnvironment().run(tenants.create_tenant, order)
    other = dataclasses.replace(order, spec=TenantSpec(["bob"], quota={"secrets": "1"}))
    await ActivityEnvironment().run(tenants.create_tenant, other)
    [quota] = await kube.list(RESOURCE_QUOTAS, namespace)
    assert quota["spec"]["hard"] == quota["status"]["hard"] == {"secrets": "1"}
    assert await names(kube, LIMIT_RANGES, namespace) == []
    assert await names(kube, SERVICE_ACCOUNTS, namespace) == ["default", "tenant-a-bob"]
    role = await kube.get(ROLES, "tenant-a-operator", namespace)
    assert [rule["resources"] for rule in role["rules"]] == [["virtualmachines"]]
    binding = await kube.get(ROLE_BINDINGS, "tenant-a-binding", namespace)
    assert [subject["name"] for subject in binding["subjects"]] == ["tenant-a-bob"]
    bare = dataclasses.replace(order, spec=TenantSpec())
    await ActivityEnvironment().run(tenants.create_tenant, bare)
    assert await names(kube, RESOURCE_QUOTAS, namespace) == []
