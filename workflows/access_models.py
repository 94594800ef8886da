"""What goes into and comes out of trying a tenant's access: plain data, small enough for a history.

A secret's contents are in none of it, and no token.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from workflows.models import GatewayAnswer
from workflows.tenant_models import Tenant

__all__ = [
    "AccessMatrix",
    "AccessOrder",
    "AccessRow",
    "AccessTable",
    "AccessTotals",
    "AuditEvidence",
    "Door",
    "DoorAnswer",
    "DoorRequest",
    "Hole",
    "LoggedReason",
    "Outcome",
    "SecretOrder",
    "Withdrawal",
    "WithdrawnToken",
    "WithdrawnTokenOrder",
]


class Door(StrEnum):
    """Where a tenant can ask."""

    GATEWAY = "gateway"
    KUBE_APISERVER = "kube-apiserver"


class Outcome(StrEnum):
    """What a door makes of a request, as far as authorization goes."""

    ALLOWED = "allowed"
    """It was authorized; whether it then found what it asked for is another matter."""
    DENIED = "denied"
    NOT_OFFERED = "not offered"
    """The door has no such request."""
    UNCLEAR = "unclear"
    """No answer, or one that says nothing of authorization."""


@dataclass(frozen=True)
class AccessOrder:
    """Tenants to act as, and the tenants whose namespaces are tried: all of these, their own among them.

    The platform's namespaces and the whole cluster are tried as well.
    """

    actors: list[Tenant]
    tenants: list[Tenant]


@dataclass(frozen=True)
class AccessRow:
    """What was observed of one resource in one place: a mark for each of `virtflow.access.matrix.VERBS`."""

    resource: str
    place: str
    gateway: str
    kube_apiserver: str


@dataclass(frozen=True)
class AccessTable:
    """All rows of one tenant. A mark is that of all its users: a hole if one of them has it."""

    tenant: str
    rows: list[AccessRow]


@dataclass(frozen=True)
class Hole:
    """A request that was not answered as the tenant's role says."""

    user: str
    """A service account's name, which begins with its tenant's."""
    verb: str
    resource: str
    place: str
    """As in a table's row."""
    door: Door
    expected: Outcome
    observed: Outcome
    code: int
    """HTTP; 0 if there was no answer."""
    said: str = ""

    def __str__(self) -> str:
        answer = f"{self.code} {self.said}".rstrip() if self.code else f"no answer: {self.said}"
        return (
            f'"{self.user}" {self.verb} {self.resource} ({self.place}) at the {self.door}: '
            f"expected {self.expected}, observed {self.observed}: {answer}"
        )


@dataclass(frozen=True)
class AuditEvidence:
    """What the kube-apiserver's audit log has of the same requests."""

    decisions: int
    """Requests whose decision in the log is what was observed."""
    never_arrived: int
    """Requests that the gateway refused, and on which the log has no decision."""
    contradictions: list[str] = field(default_factory=list)
    """Those of which the log says something else, or nothing where it should."""
    strays: list[str] = field(default_factory=list)
    """Writes by a tenant that succeeded outside its namespace, whoever sent them."""


@dataclass(frozen=True)
class AccessTotals:
    """Of all cells: a cell is a request of a tenant in a place, and is tried at each door that has it."""

    cells: int = 0
    requests: int = 0
    allowed: int = 0
    denied: int = 0
    not_offered: int = 0
    unclear: int = 0
    holes: int = 0


@dataclass(frozen=True)
class AccessMatrix:
    """What was observed, a table for each actor."""

    tables: list[AccessTable]
    totals: AccessTotals
    holes: list[Hole]
    """The first of them: the tables show all."""
    evidence: AuditEvidence


@dataclass(frozen=True)
class SecretOrder:
    """A secret for a tenant to have. Its contents are drawn where it is made, and told to nobody."""

    namespace: str
    name: str
    labels: dict[str, str]


@dataclass(frozen=True)
class DoorRequest:
    """One request of a tenant's first user at a door. `place` is a namespace, or empty for the whole cluster."""

    tenant: Tenant
    door: Door
    verb: str
    resource: str
    """Plural, or `plural/subresource`: one of the matrix'."""
    place: str
    name: str = ""
    token_for: Door | None = None
    """Whose audience its token is made for; None for that of the door."""


@dataclass(frozen=True)
class DoorAnswer:
    """The code and a refusal's words. The body of what was allowed is not kept."""

    code: int
    reason: str
    message: str
    request_id: str


class Withdrawal(StrEnum):
    """What the platform deletes to make a token worthless."""

    ACCOUNT = "service account"
    SECRET = "secret"
    """To which the token was bound when it was made."""


@dataclass(frozen=True)
class WithdrawnTokenOrder:
    """A token of the tenant's first user that works, is withdrawn, and is then used for so long at most."""

    tenant: Tenant
    withdrawal: Withdrawal
    watched_for: timedelta
    labels: dict[str, str]
    """Of what is made for it, and of the account, which may have to be made again."""


@dataclass(frozen=True)
class WithdrawnToken:
    """`worked` is the code before it was withdrawn; `last` a refusal, unless it was let in throughout."""

    worked: int
    last: GatewayAnswer
    let_in_for: timedelta
    """From its withdrawal until the last request was sent that was let in."""


@dataclass(frozen=True)
class LoggedReason:
    """What the operator finds of a request: the gateway's verdict and reason, and what went on from there."""

    verdict: str
    reason: str
    forwarded: int
    """Requests that reached the kube-apiserver under the same id, the gateway's own reviews not counted."""
    heard: list[str]
    """All that the kube-apiserver has heard of it, reviews too: who asked, and for what."""
