"""What the steps of one scenario tell each other, and what they have in common."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from workflows.access_models import AccessMatrix, DoorAnswer, WithdrawnToken
from workflows.fault_models import Instance, OutageEnded, Recovery
from workflows.models import Autoscaled, GatewayAnswer, ReplicaSetRef, VirtualMachineCreated, VirtualMachineRef
from workflows.quota_models import Seen, Strain
from workflows.tenant_models import Tenant

FEATURES = Path(__file__).parents[3] / "features"
MANIFESTS = FEATURES / "manifests"
TENANTS = FEATURES / "tenants"
RUNNING_WITHIN = timedelta(seconds=60)
LOAD_RAMP = timedelta(seconds=5)
MILLISECOND = timedelta(milliseconds=1)


@dataclass
class Crowd:
    """Tenants that came at once, what each created, and what each saw afterwards, in their order."""

    tenants: list[Tenant] = field(default_factory=list)
    created: list[Seen] = field(default_factory=list)


@dataclass
class World:
    """What the steps of one scenario tell each other."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    answer: GatewayAnswer | None = None
    created: VirtualMachineCreated | None = None
    running: dict[str, VirtualMachineCreated] = field(default_factory=dict)
    """What a tenant was given that runs, by the tenant's name."""
    replica_set: ReplicaSetRef | None = None
    autoscaled: Autoscaled | None = None
    matrix: AccessMatrix | None = None
    door_answer: DoorAnswer | None = None
    withdrawn: WithdrawnToken | None = None
    strain: Strain | None = None
    machines: dict[str, VirtualMachineRef] = field(default_factory=dict)
    """What was asked for and need not run, by name."""
    crowd: Crowd = field(default_factory=Crowd)
    before: Instance | None = None
    """The life of the virtual machine that a fault has ended."""
    node_failed: bool = False
    """Whether that fault was its node's."""
    recovery: Recovery | None = None
    outage: OutageEnded | None = None

    def tenant(self, name: str) -> Tenant:
        assert name in self.tenants, (
            f'There is no tenant "{name}" yet: write Given the tenant "{name}" before this step.'
        )
        return self.tenants[name]

    def last_answer(self) -> GatewayAnswer:
        assert self.answer is not None, "No request was made to the gateway before this step."
        return self.answer

    def last_matrix(self) -> AccessMatrix:
        assert self.matrix is not None, "Nobody tried every request before this step."
        return self.matrix

    def last_door_answer(self) -> DoorAnswer:
        assert self.door_answer is not None, "Nobody tried a request at a door before this step."
        return self.door_answer

    def machine(self) -> VirtualMachineRef:
        assert self.created is not None, "No virtual machine was created before this step."
        assert self.created.machine is not None, f"It was refused: {self.created.answer.message}"
        return self.created.machine

    def last_strain(self) -> Strain:
        assert self.strain is not None, "No autoscaler was made to want more than it gets before this step."
        return self.strain

    def last_autoscaled(self) -> Autoscaled:
        assert self.autoscaled is not None, "No load was applied before this step."
        return self.autoscaled


@pytest.fixture
def world() -> World:
    return World()
