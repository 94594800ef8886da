"""What goes into and comes out of steps about quotas and crowds: plain data, as in `models`."""

from dataclasses import dataclass, field
from datetime import timedelta

from workflows.models import GatewayAnswer, LoadOrder, LoadOutcome, ReplicaSetRef, VirtualMachineRef

__all__ = ["PressOrder", "Pressed", "ReasonWait", "Seen", "Strain", "StuckWait", "Tries", "seen_in"]


@dataclass(frozen=True)
class ReasonWait:
    """Until a condition of this very machine says these words."""

    machine: VirtualMachineRef
    words: str
    within: timedelta


@dataclass(frozen=True)
class Seen:
    """Of an answer of the gateway, which machines are in it: of a hundred answers whole ones would be too much."""

    code: int
    reason: str
    machines: list[VirtualMachineRef] = field(default_factory=list)


def seen_in(answer: GatewayAnswer) -> Seen:
    """Of an object, or of a list."""
    objects = answer.body.get("items", [answer.body] if answer.code < 300 else [])
    machines = [
        VirtualMachineRef(*(each["metadata"][key] for key in ("namespace", "name", "uid"))) for each in objects
    ]
    return Seen(answer.code, answer.reason, machines)


@dataclass(frozen=True)
class Tries:
    """virt-controller's refused tries to make pods in a namespace, as the audit log has them."""

    count: int
    span: timedelta
    """From the first to the last, by the kube-apiserver's clock."""


@dataclass(frozen=True)
class Strain:
    """How far an autoscaler's wish is from what there is, and what stands between."""

    desired: int
    current: int
    ready: int
    refused: int
    """Instances that a quota keeps from running."""
    reasons: list[str]
    """In the cluster's words: the autoscaler's, the replica set's, its instances', and the quotas' figures."""
    is_quota: bool
    """Whether a quota is what stands between."""

    @property
    def is_stuck(self) -> bool:
        """Whether it wants more than runs, a quota is why, and all that does not run is refused by one."""
        return self.is_quota and self.desired > self.ready and self.ready + self.refused == self.current


@dataclass(frozen=True)
class StuckWait:
    """Until the autoscaler wants more than the quota lets run, and all that it lets run does."""

    target: ReplicaSetRef
    within: timedelta


@dataclass(frozen=True)
class PressOrder:
    """Load for a replica set whose tenant's quota is too small for it."""

    target: ReplicaSetRef
    load: LoadOrder
    stuck_within: timedelta


@dataclass(frozen=True)
class Pressed:
    """How an autoscaler stood at the quota's limit, and the load that drove it there."""

    strain: Strain
    load: LoadOutcome
