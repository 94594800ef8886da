"""The activities against the real cluster, above all what a retry must not do twice."""

import contextlib
import dataclasses
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.evidence import Evidence
from activities.gateway import Gateway
from activities.tenants import Tenants
from activities.tokens import Tokens
from activities.virtual_machines import VirtualMachines
from clusters.endpoints import Endpoints
from virtflow.kube import Informer, KubeClient, KubeError
from virtflow.kube.resources import NAMESPACES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, VMIS, VMS
from virtflow.sequence.records import Records
from workflows.models import (
    Bearer,
    CreateEvidence,
    GatewayRequest,
    Verb,
    VirtualMachineRef,
    VirtualMachineWait,
)
from workflows.tenant_models import Tenant, TenantOrder

MANIFEST = (Path(__file__).parents[2] / "features" / "manifests" / "test-vm.yaml").read_text()


@dataclass
class Activities:
    kube: KubeClient
    tenants: Tenants
    gateway: Gateway
    machines: VirtualMachines
    evidence: Evidence


@pytest.fixture
async def activities(endpoints: Endpoints) -> AsyncIterator[Activities]:
    async with contextlib.AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await KubeClient.connect(endpoints.kubeconfig))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        namespaces, accounts, quotas, vms, vmis = [
            Informer(kube, resource) for resource in (NAMESPACES, SERVICE_ACCOUNTS, RESOURCE_QUOTAS, VMS, VMIS)
        ]
        for informer in (namespaces, accounts, quotas, vms, vmis):
            await stack.enter_async_context(informer.running())
        records = stack.enter_context(contextlib.closing(Records(endpoints.audit_log, endpoints.access_log)))
        tokens = Tokens(kube)
        yield Activities(
            kube,
            Tenants(kube, tokens, namespaces, accounts, quotas),
            Gateway(kube, http, endpoints, tokens),
            VirtualMachines(kube, vms, vmis),
            Evidence(kube, records),
        )


@pytest.fixture
def environment() -> ActivityEnvironment:
    environment = ActivityEnvironment()
    # A workflow of its own for each test: request ids are derived from it.
    environment.info = dataclasses.replace(environment.info, workflow_run_id=uuid.uuid4().hex)
    return environment


@pytest.fixture
async def order(activities: Activities, environment: ActivityEnvironment) -> AsyncIterator[TenantOrder]:
    order = TenantOrder("tenant-a", f"tenant-a-{uuid.uuid4().hex[:8]}", {"virtflow.io/run": "test"})
    yield order
    await environment.run(activities.tenants.delete_tenant, order)


@pytest.fixture
async def tenant(activities: Activities, environment: ActivityEnvironment, order: TenantOrder) -> Tenant:
    return await environment.run(activities.tenants.create_tenant, order)


def retried(environment: ActivityEnvironment) -> ActivityEnvironment:
    """The same activity, on its second attempt."""
    again = ActivityEnvironment()
    again.info = dataclasses.replace(environment.info, attempt=2)
    return again


@pytest.mark.anyio
async def test_a_tenant_is_made_and_removed_twice_without_harm(
    activities: Activities, environment: ActivityEnvironment, order: TenantOrder
) -> None:
    first = await environment.run(activities.tenants.create_tenant, order)
    again = await environment.run(activities.tenants.create_tenant, order)
    assert first == again
    await environment.run(activities.tenants.delete_tenant, order)
    await environment.run(activities.tenants.delete_tenant, order)
    with pytest.raises(KubeError) as gone:
        await activities.kube.get(NAMESPACES, order.namespace)
    assert gone.value.code == 404


@pytest.mark.anyio
async def test_a_retried_create_finds_its_own_machine(
    activities: Activities, environment: ActivityEnvironment, tenant: Tenant
) -> None:
    request = GatewayRequest(tenant, Verb.CREATE, manifest=MANIFEST, labels={"virtflow.io/run": "test"})
    first = await environment.run(activities.gateway.send, request)
    again = await retried(environment).run(activities.gateway.send, request)
    assert (first.code, again.code) == (201, 201)
    assert first.body["metadata"]["uid"] == again.body["metadata"]["uid"]
    assert first.request_id == again.request_id, "its evidence is in the logs under the first try's id"


@pytest.mark.anyio
async def test_a_machine_of_another_run_is_in_the_way_of_a_retry_too(
    activities: Activities, environment: ActivityEnvironment, tenant: Tenant
) -> None:
    request = GatewayRequest(tenant, Verb.CREATE, manifest=MANIFEST, labels={"virtflow.io/run": "another"})
    await environment.run(activities.gateway.send, request)
    mine = dataclasses.replace(request, labels={"virtflow.io/run": "mine"})
    answer = await retried(environment).run(activities.gateway.send, mine)
    assert (answer.code, answer.reason) == (409, "AlreadyExists")


@pytest.mark.anyio
async def test_a_first_create_hears_that_the_name_is_taken(
    activities: Activities, environment: ActivityEnvironment, tenant: Tenant
) -> None:
    request = GatewayRequest(tenant, Verb.CREATE, manifest=MANIFEST, labels={"virtflow.io/run": "test"})
    await environment.run(activities.gateway.send, request)
    assert (await environment.run(activities.gateway.send, request)).code == 409


@pytest.mark.anyio
@pytest.mark.parametrize("bearer", [Bearer.NOBODY, Bearer.NONE])
async def test_nobody_is_let_in(
    activities: Activities, environment: ActivityEnvironment, tenant: Tenant, bearer: Bearer
) -> None:
    answer = await environment.run(activities.gateway.send, GatewayRequest(tenant, Verb.LIST, bearer=bearer))
    assert (answer.code, answer.reason) == (401, "Unauthorized")


@pytest.mark.anyio
async def test_a_machine_runs_and_each_arrow_is_in_the_audit_log(
    activities: Activities, environment: ActivityEnvironment, tenant: Tenant
) -> None:
    request = GatewayRequest(tenant, Verb.CREATE, manifest=MANIFEST)
    answer = await environment.run(activities.gateway.send, request)
    meta = answer.body["metadata"]
    machine = VirtualMachineRef(meta["namespace"], meta["name"], meta["uid"])
    state = await environment.run(
        activities.machines.await_running, VirtualMachineWait(machine, timedelta(seconds=60))
    )
    evidence = CreateEvidence(machine, answer.request_id, tenant)
    arrows = await environment.run(activities.evidence.observe_create_sequence, evidence)
    assert (state.printable_status, state.phase, state.ready) == ("Running", "Running", True)
    assert [arrow.number for arrow in arrows if arrow.observed] == [1, 2, 2, 3, 4, 6, 6, 8, 9, 10, 11]


@pytest.mark.anyio
async def test_another_machine_of_the_name_is_not_waited_for(
    activities: Activities, environment: ActivityEnvironment, tenant: Tenant
) -> None:
    await environment.run(activities.gateway.send, GatewayRequest(tenant, Verb.CREATE, manifest=MANIFEST))
    stranger = VirtualMachineRef(tenant.namespace, "test-vm", "another-uid")
    with pytest.raises(ApplicationError, match="did not run within 2 s") as error:
        await environment.run(activities.machines.await_running, VirtualMachineWait(stranger, timedelta(seconds=2)))
    assert error.value.non_retryable
