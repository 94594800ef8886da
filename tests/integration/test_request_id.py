"""One id leads from a step of a workflow to the gateway's record of it, and on to what the kube-apiserver audited."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory

from clusters.endpoints import Endpoints
from virtflow.bench.bare import BareClient
from virtflow.bench.harness import machine_manifest
from virtflow.temporal import TASK_QUEUE, connect
from workflows.create_vm import CreateVirtualMachine
from workflows.models import VirtualMachineOrder
from workflows.tenant_models import Tenant, TenantOrder

pytestmark = pytest.mark.anyio

GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"


@pytest.fixture
async def tenant(endpoints: Endpoints) -> AsyncIterator[Tenant]:
    name = f"request-id-{uuid.uuid4().hex[:8]}"
    order = TenantOrder(name, name, {"virtflow.io/run": "test"})
    async with BareClient.connected(endpoints) as client:
        yield await client.create_tenant(order)
        await client.delete_tenants([order])


def results(history: WorkflowHistory) -> Iterator[dict[str, Any]]:
    """What the activities of a workflow returned, as the history keeps it."""
    for event in history.events:
        for payload in event.activity_task_completed_event_attributes.result.payloads:
            result = json.loads(payload.data)
            if isinstance(result, dict):
                yield result


def events_of(log: Path, key: str, value: str) -> list[dict[str, Any]]:
    lines = (line for line in log.read_text().splitlines() if value in line)
    return [event for line in lines if str((event := json.loads(line))[key]).startswith(value)]


async def test_the_id_of_a_create_is_in_the_history_the_access_log_and_the_audit_log(
    endpoints: Endpoints, tenant: Tenant
) -> None:
    temporal = await connect(endpoints)
    order = VirtualMachineOrder(
        tenant, machine_manifest("test-vm"), {"virtflow.io/run": "test"}, timedelta(seconds=120)
    )
    handle = await temporal.start_workflow(
        CreateVirtualMachine.run, order, id=f"request-id/{tenant.name}", task_queue=TASK_QUEUE
    )
    created = await handle.result()
    (request_id,) = {result["request_id"] for result in results(await handle.fetch_history()) if "code" in result}
    assert created.answer.request_id == request_id

    (record,) = events_of(endpoints.access_log, "request_id", request_id)
    expected = {"tenant": tenant.namespace, "verb": "create", "resource": "virtualmachines", "verdict": "allowed"}
    assert record.items() >= expected.items()

    audited = events_of(endpoints.audit_log, "auditID", request_id)
    resources = [(event["user"]["username"], event["objectRef"]["resource"]) for event in audited]
    # The token has never been here before, so that both reviews are this request's own.
    assert sorted(resources) == [
        (GATEWAY, "subjectaccessreviews"),
        (GATEWAY, "tokenreviews"),
        (GATEWAY, "virtualmachines"),
    ]
    assert {record["token_review"], record["access_review"], request_id} == {event["auditID"] for event in audited}
    (create,) = [event for event in audited if event["auditID"] == request_id]
    assert create["impersonatedUser"]["username"] == f"system:serviceaccount:{tenant.namespace}:{tenant.user}"
    assert all(arrow.observed for arrow in created.arrows)
