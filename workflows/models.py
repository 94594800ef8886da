"""What goes into and comes out of workflows and activities.

Plain data, because it is written to histories: never a token, never a client. Durations are timedeltas.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from workflows.tenant_models import Tenant

__all__ = [
    "AutoscaleOrder",
    "Autoscaled",
    "AutoscalerSpec",
    "Bearer",
    "CreateEvidence",
    "GatewayAnswer",
    "GatewayRequest",
    "LoadOrder",
    "LoadOutcome",
    "LoadRun",
    "LoadStretch",
    "ObservedArrow",
    "ReplicaSetOrder",
    "ReplicaSetRef",
    "ReplicasWait",
    "ScaleDecision",
    "ScaleState",
    "ScenarioOrder",
    "SettleWait",
    "StepsTaken",
    "Verb",
    "VirtualMachineCreated",
    "VirtualMachineOrder",
    "VirtualMachineRef",
    "VirtualMachineState",
    "VirtualMachineWait",
]


class Verb(StrEnum):
    """What the gateway offers on virtual machines."""

    CREATE = "create"
    LIST = "list"
    GET = "get"
    UPDATE = "update"
    DELETE = "delete"


class Bearer(StrEnum):
    """Which token a request carries: the tenant's own, or one that must open nothing."""

    TENANT = "the tenant's"
    NONE = "missing"
    """No Authorization header at all."""
    MALFORMED = "malformed"
    NOBODY = "made up"
    """Of the right form, and issued by nobody."""
    OTHER_AUDIENCE = "made for the kube-apiserver"
    FORGED = "signed with another key"
    """The tenant's own claims, and a signature that is not the cluster's."""
    UNSIGNED = "unsigned"
    """Says of itself that it needs no signature (`alg: none`)."""


@dataclass(frozen=True)
class GatewayRequest:
    """One request to the IAM gateway."""

    tenant: Tenant
    verb: Verb
    name: str | None = None
    manifest: str | None = None
    """YAML, as its author wrote it."""
    namespace: str | None = None
    """Another namespace than the tenant's own."""
    bearer: Bearer = Bearer.TENANT
    headers: dict[str, str] = field(default_factory=dict)
    """Sent beside the usual ones: one of the same name is then there twice."""
    labels: dict[str, str] = field(default_factory=dict)
    """Put on what a create makes, so that cleanup and a retry can find it."""


@dataclass(frozen=True)
class GatewayAnswer:
    """What came back: the code, the object or Status, the server's warnings, the id it has in every log."""

    code: int
    body: dict[str, Any]
    warnings: list[str]
    request_id: str

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))


@dataclass(frozen=True)
class VirtualMachineRef:
    """One very object: a later one of the same name is another."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class VirtualMachineOrder:
    """A virtual machine for a tenant to create through the gateway, and how long it may take to run."""

    tenant: Tenant
    manifest: str
    labels: dict[str, str]
    running_within: timedelta


@dataclass(frozen=True)
class VirtualMachineWait:
    machine: VirtualMachineRef
    within: timedelta


@dataclass(frozen=True)
class VirtualMachineState:
    """What the cluster says of a virtual machine and its instance."""

    printable_status: str
    ready: bool
    phase: str
    node: str


@dataclass(frozen=True)
class CreateEvidence:
    """Whose request made which machine: what the records of a create are looked for by."""

    machine: VirtualMachineRef
    request_id: str
    """The gateway's, of the create itself."""
    tenant: Tenant


@dataclass(frozen=True)
class ObservedArrow:
    """An arrow of the sequence diagram beside its proof in the logs."""

    number: int
    title: str
    actor: str
    observed: bool
    after: timedelta | None = None
    """Since the request's own first write, by the kube-apiserver's own clock. Nothing for what came before it, and
    negative for a review that was an earlier request's, up to the time for which the gateway uses one."""
    at: datetime | None = None
    """When its proof reached the kube-apiserver, by that clock (UTC). None for what the gateway's log proves."""


@dataclass(frozen=True)
class VirtualMachineCreated:
    """How a create ended. `machine` and what follows it are there if it was accepted."""

    answer: GatewayAnswer
    machine: VirtualMachineRef | None = None
    state: VirtualMachineState | None = None
    arrows: list[ObservedArrow] = field(default_factory=list)
    accepted_at: datetime | None = None
    """By Temporal's clock, as `running_at`: when the workflow was told."""
    running_at: datetime | None = None

    @property
    def took(self) -> timedelta | None:
        """From the create to Running, by the audit log; None where that is not on record."""
        return self.arrows[-1].after if self.arrows else None


@dataclass(frozen=True)
class ReplicaSetRef:
    """A VirtualMachineInstanceReplicaSet and the HorizontalPodAutoscaler that moves it."""

    namespace: str
    name: str
    autoscaler: str


@dataclass(frozen=True)
class ReplicaSetOrder:
    """Both as YAML, for the platform's administrator to create: neither is among a tenant's rights."""

    namespace: str
    replica_set: str
    autoscaler: str
    labels: dict[str, str]
    ready_within: timedelta


@dataclass(frozen=True)
class ReplicasWait:
    """Until exactly so many replicas are wanted, there and ready."""

    target: ReplicaSetRef
    replicas: int
    within: timedelta


@dataclass(frozen=True)
class SettleWait:
    """Until the autoscaler has scaled out and rests: its metric in the tolerated band, or at its maximum."""

    target: ReplicaSetRef
    before: int
    """Replicas before the load. Not for the wait to find out: a retry would find what has scaled already."""
    within: timedelta


@dataclass(frozen=True)
class ScaleState:
    """What the autoscaler and the replica set said at one moment."""

    replicas: int
    ready: int
    desired: int
    utilization: int | None
    """Percent of the CPU request, as the autoscaler last reported it."""


@dataclass(frozen=True)
class LoadOrder:
    """Load on a replica set's guests, as a scenario asks for it."""

    target: ReplicaSetRef
    users: int
    ramp: timedelta
    hold: timedelta
    rate: float = 1.0
    """Requests a second of each user."""


@dataclass(frozen=True)
class LoadRun:
    """One run of a load. `name` tells it from every other, and is derived, for a retry to find it."""

    name: str
    load: LoadOrder


@dataclass(frozen=True)
class LoadStretch:
    """Some seconds of load. A failed request counts as slower than any answer, so a percentile may be None."""

    requests: int
    failed: int
    p50: timedelta | None
    p95: timedelta | None
    p99: timedelta | None


@dataclass(frozen=True)
class LoadOutcome:
    """All of a load, its worst ten seconds, and its last ten."""

    whole: LoadStretch
    worst: LoadStretch
    last: LoadStretch
    never_started: int
    """Users of the plan that never came."""
    resumed: bool
    restarted: bool
    waited: timedelta
    """For its turn, among all loads of the cluster."""


@dataclass(frozen=True)
class ScaleDecision:
    """One write of /scale by the autoscaler, and what it reported as its reason in the same round."""

    at: datetime
    """When it reached the kube-apiserver, by that server's clock (UTC)."""
    before: int
    after: int
    utilization: int | None
    target: int
    followed: bool
    """Whether virt-controller then created or deleted instances up to the wanted number."""
    disagreement: str = ""
    """Why it does not agree with the autoscaler's own metrics, tolerance and policy; empty if it does."""


@dataclass(frozen=True)
class AutoscaleOrder:
    """Load for a replica set, and how long scaling out and in may take."""

    target: ReplicaSetRef
    load: LoadOrder
    settled_within: timedelta
    scaled_in_within: timedelta


@dataclass(frozen=True)
class Autoscaled:
    """Arrows 12 to 15, out and in. Everything in it was measured: whether it is good is for the scenario to say."""

    before: ScaleState
    settled: ScaleState
    after: ScaleState
    minimum: int
    maximum: int
    target_utilization: int
    load: LoadOutcome
    decisions: list[ScaleDecision]
    settled_at: datetime
    """By Temporal's clock: when the workflow was told."""

    @property
    def highest(self) -> int:
        """The most replicas that were ever asked for."""
        return max((decision.after for decision in self.decisions), default=self.before.replicas)


@dataclass(frozen=True)
class AutoscalerSpec:
    """An autoscaler's limits."""

    minimum: int
    maximum: int
    target_utilization: int


@dataclass(frozen=True)
class ScenarioOrder:
    """A scenario's session: who it is, and how long nobody may speak to it before it undoes everything."""

    run_id: str
    feature: str
    scenario: str
    labels: dict[str, str]
    idle_timeout: timedelta


@dataclass(frozen=True)
class StepsTaken:
    """How far a scenario's session is, by the ids of its updates."""

    finished: list[str]
    """In the order of their ends, however each ended."""
    under_way: list[str]
    is_over: bool
    """Whether no step is taken any more: it is undone, or being undone."""
