"""The harness under measurement: the same workflows that scenarios and journeys start."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from temporalio.client import Client

from virtflow.errors import VirtflowError
from virtflow.temporal import TASK_QUEUE
from workflows.create_vm import CreateVirtualMachine
from workflows.labels import labels_of
from workflows.models import VirtualMachineOrder
from workflows.tenant_models import Tenant

__all__ = ["RUNNING_WITHIN", "Created", "create_machine", "create_machines", "machine_manifest"]

RUNNING_WITHIN = timedelta(minutes=10)
MANIFEST = Path(__file__).parents[2] / "features" / "manifests" / "test-vm.yaml"


@dataclass(frozen=True)
class Created:
    """A virtual machine that runs, and when the harness went on to its next step, by Temporal's clock."""

    namespace: str
    name: str
    acted: datetime


def machine_manifest(name: str) -> str:
    """The one that the features use, under another name."""
    body = yaml.load(MANIFEST.read_text(), Loader=yaml.CSafeLoader)
    body["metadata"]["name"] = name
    return str(yaml.dump(body, Dumper=yaml.CSafeDumper))


async def create_machines(
    temporal: Client, run: str, tenants: list[Tenant], count: int, *, first: int = 0
) -> list[Created]:
    """All at once, shared out among the tenants; `first` is the number in the first one's name."""
    orders = [(tenants[number % len(tenants)], f"vm-{number:04}") for number in range(first, first + count)]
    return list(await asyncio.gather(*(create_machine(temporal, run, tenant, name) for tenant, name in orders)))


async def create_machine(temporal: Client, run: str, tenant: Tenant, name: str) -> Created:
    """One, and when its workflow was told that it runs and went on to its next step."""
    workflow_id = f"{run}/{tenant.name}/{name}"
    order = VirtualMachineOrder(tenant, machine_manifest(name), labels_of(workflow_id), RUNNING_WITHIN)
    created = await temporal.execute_workflow(CreateVirtualMachine.run, order, id=workflow_id, task_queue=TASK_QUEUE)
    if created.machine is None or created.running_at is None:
        raise VirtflowError(f"{name} was refused: {created.answer.message}")
    return Created(created.machine.namespace, created.machine.name, created.running_at)
