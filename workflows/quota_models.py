"""What goes into and comes out of steps about quotas and crowds: plain data, as in `models`."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from workflows.models import GatewayAnswer, LoadOrder, LoadOutcome, ReplicaSetRef, VirtualMachineRef

__all__ = ["PressOrder", "Pressed", "ReasonWait", "Seen", "Strain", "StuckWait", "Tries", "TriesWait", "seen_in"]


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
class TriesWait:
    """Until the audit log has refused tries of so many machines, over so long a time of each."""

    namespace: str
    machines: int
    span: timedelta
    within: timedelta


FEWEST_TRIES = 4
"""Of three, pauses of one length look as if they had grown."""


@dataclass(frozen=True)
class Tries:
    """virt-controller's refused tries to make the pod of one machine, as the audit log has them."""

    launcher: str
    moments: list[datetime]
    """In order, by the kube-apiserver's clock. At least one."""

    @property
    def span(self) -> timedelta:
        return self.moments[-1] - self.moments[0]

    @property
    def pauses_grow(self) -> bool:
        """Whether the later half of their time holds at most half as many as the first.

        Of pauses that double it holds one or two tries, of pauses of one length as many as the first half.
        """
        later = sum(moment > self.moments[0] + self.span / 2 for moment in self.moments)
        return len(self.moments) >= FEWEST_TRIES and 2 * later <= len(self.moments) - later


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
