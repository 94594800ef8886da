"""What goes into and comes out of workflows and activities.

Plain data, because it is written to histories: never a token, never a client. Durations are timedeltas.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

__all__ = [
    "SEQUENCE_CREATE",
    "Bearer",
    "GatewayAnswer",
    "GatewayRequest",
    "ObservedArrow",
    "ScenarioOrder",
    "Tenant",
    "TenantOrder",
    "Verb",
    "VirtualMachineCreated",
    "VirtualMachineOrder",
    "VirtualMachineRef",
    "VirtualMachineState",
    "VirtualMachineWait",
]

SEQUENCE_CREATE = "create"


@dataclass(frozen=True)
class TenantOrder:
    """A tenant to be: its name in the feature, and the namespace that is its own in this scenario."""

    name: str
    namespace: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Tenant:
    """A tenant that exists. Its user is a reference: whoever acts for it mints a token of its own."""

    name: str
    namespace: str
    user: str
    """The service account's name, in the tenant's namespace."""


class Verb(StrEnum):
    """What the gateway offers on virtual machines."""

    CREATE = "create"
    LIST = "list"
    GET = "get"
    UPDATE = "update"
    DELETE = "delete"


class Bearer(StrEnum):
    """Whose token a request carries."""

    TENANT = "tenant"
    NOBODY = "nobody"
    """A token of the right form that nobody issued."""
    NONE = "none"
    """No Authorization header at all."""


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
class ObservedArrow:
    """An arrow of the sequence diagram beside its proof in the audit log."""

    number: int
    title: str
    actor: str
    observed: bool
    after: timedelta | None = None
    """Since the sequence's first write, by the kube-apiserver's own clock."""


@dataclass(frozen=True)
class VirtualMachineCreated:
    """How a create ended. `machine` and what follows it are there if it was accepted."""

    answer: GatewayAnswer
    machine: VirtualMachineRef | None = None
    state: VirtualMachineState | None = None
    arrows: list[ObservedArrow] = field(default_factory=list)


@dataclass(frozen=True)
class ScenarioOrder:
    """A scenario's session: who it is, and how long nobody may speak to it before it undoes everything."""

    run_id: str
    feature: str
    scenario: str
    labels: dict[str, str]
    idle_timeout: timedelta
