"""What goes into and comes out of a tenant's journey. As in `models`: plain data, durations are timedeltas."""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from workflows.failures import FailureType
from workflows.models import LoadOutcome, ObservedArrow, ScaleDecision
from workflows.tenant_models import TenantOrder

__all__ = ["JourneyLoad", "JourneyOrder", "JourneyPhase", "TenantJourneyOutcome"]


class JourneyPhase(StrEnum):
    """What a tenant's journey passes, in order."""

    TENANT_CREATED = "tenant created"
    VM_ACCEPTED = "VM accepted"
    VM_RUNNING = "VM Running"
    REPLICA_SET_READY = "replica set ready"
    SCALED_OUT = "scaled out and settled"
    SCALED_IN = "scaled in"
    GONE = "gone"
    WHOLE = "whole"
    """All of it, and nothing left behind."""


@dataclass(frozen=True)
class JourneyLoad:
    """A replica set for a journey to make, its autoscaler, both as YAML, and the load that moves them."""

    replica_set: str
    autoscaler: str
    users: int
    ramp: timedelta
    hold: timedelta
    ready_within: timedelta
    settled_within: timedelta
    scaled_in_within: timedelta


@dataclass(frozen=True)
class JourneyOrder:
    """The whole diagram for one tenant. Without `load` it ends with the virtual machine: arrows 1 to 11."""

    tenant: TenantOrder
    manifest: str
    running_within: timedelta
    load: JourneyLoad | None = None

    @property
    def phases(self) -> list[JourneyPhase]:
        scaling = (JourneyPhase.REPLICA_SET_READY, JourneyPhase.SCALED_OUT, JourneyPhase.SCALED_IN)
        return [phase for phase in JourneyPhase if self.load or phase not in scaling]


@dataclass(frozen=True)
class TenantJourneyOutcome:
    """How far a tenant came and how long each phase took; whether that is good is for whoever asked to say."""

    took: dict[JourneyPhase, timedelta]
    """Of each phase that was passed, from the one before; of the whole, from the workflow's start."""
    stopped_at: JourneyPhase | None = None
    """The first phase it did not pass."""
    problem: str = ""
    """Why, in one line."""
    left: list[str] = field(default_factory=list)
    """What cleanup could not undo."""
    arrows: list[ObservedArrow] = field(default_factory=list)
    decisions: list[ScaleDecision] = field(default_factory=list)
    load: LoadOutcome | None = None
    failed_by: FailureType | None = None
    """Of the problem, if that is a failure's."""

    @property
    def running_after(self) -> timedelta | None:
        """From the stored create to VM Running, by the kube-apiserver's own clock."""
        return self.arrows[-1].after if self.arrows else None
