"""What the programs themselves recorded: a line of the kube-apiserver's audit log, one of the gateway's access log.

A line is held against the shape of what the sequences ask for, and only that is kept: an event has ten kilobytes
of bodies, a write that proves an arrow an owner and a phase. Pydantic decodes and selects in one pass; what it
leaves out never becomes objects. The shapes have the names that Kubernetes gives them.
"""

import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter

__all__ = [
    "ACCESS_RECORD_START",
    "EVENT_START",
    "NO_STATUS",
    "AccessRecord",
    "Owner",
    "Status",
    "Write",
    "access_record_of",
    "write_of",
]

READS = frozenset({"get", "list", "watch"})
MUTATION = "mutation.webhook.admission.k8s.io/"
"""In the event of what was admitted, an annotation for each mutating webhook that was called."""

EVENT_START, ACCESS_RECORD_START = b'{"kind":"Event"', b'{"time": '
"""How every line begins: its writer puts the fields in one order."""


@dataclass(frozen=True, slots=True)
class Owner:
    uid: str
    name: str = ""
    controller: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """Of a pod, a virtual machine, its instance, an autoscaler."""

    phase: str = ""
    printableStatus: str = ""
    ready: bool = False
    currentReplicas: int = 0
    desiredReplicas: int = 0
    currentMetrics: list[dict[str, Any]] | None = None


NO_STATUS = Status()


@dataclass(frozen=True, slots=True)
class Write:
    """One write that the kube-apiserver answered, and what the answer says of the object that resulted."""

    at: datetime
    """When the request arrived, by the server's clock (microseconds)."""
    user: str
    impersonated: str | None
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    audit_id: str = ""
    uid: str = ""
    owner: Owner | None = None
    """The one that controls it."""
    replicas: int | None = None
    status: Status = NO_STATUS
    mutations: tuple[str, ...] = ()
    """What the server noted of each mutating webhook (JSON)."""


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """What the gateway noted of one request: the fields that tell whose it was and what became of it."""

    request_id: str
    user: str
    tenant: str
    namespace: str
    verb: str
    code: int
    verdict: str
    resource: str = ""
    token_review: str = ""
    access_review: str = ""
    """Audit-IDs of the reviews that were used: this request's own, or an earlier one's."""
    latency_ms: float = 0


def write_of(line: bytes) -> Write | None:
    """A line of the audit log (audit.k8s.io/v1) as a write; None for a read or for one that was not answered yet.

    Raises ValueError if it is no such line.
    """
    event = _EVENT.validate_json(line)
    if event.stage != "ResponseComplete" or event.verb in READS:
        return None
    ref, answer = event.objectRef, event.responseObject or _NO_ANSWER
    meta = answer.metadata
    # What many writes have in common they share.
    return Write(
        at=event.requestReceivedTimestamp,
        user=sys.intern(event.user.username),
        impersonated=sys.intern(event.impersonatedUser.username) if event.impersonatedUser else None,
        verb=sys.intern(event.verb),
        resource=sys.intern(ref.resource),
        subresource=sys.intern(ref.subresource),
        namespace=sys.intern(ref.namespace),
        # A create with generateName has its name in the answer only.
        name=sys.intern(ref.name or meta.name),
        code=event.responseStatus.code,
        audit_id=event.auditID,
        uid=sys.intern(meta.uid),
        owner=next((owner for owner in meta.ownerReferences or () if owner.controller), None),
        replicas=answer.spec.replicas if answer.spec else None,
        status=answer.status if isinstance(answer.status, Status) and answer.status != NO_STATUS else NO_STATUS,
        mutations=tuple(note for key, note in (event.annotations or {}).items() if key.startswith(MUTATION)),
    )


def access_record_of(line: bytes) -> AccessRecord:
    """A line of the gateway's access log. Raises ValueError if it is none."""
    return _ACCESS_RECORD.validate_json(line)


@dataclass(slots=True)
class _Metadata:
    name: str = ""
    uid: str = ""
    ownerReferences: list[Owner] | None = None


@dataclass(slots=True)
class _Spec:
    replicas: int | None = None


@dataclass(slots=True)
class _Answer:
    metadata: _Metadata = field(default_factory=_Metadata)
    spec: _Spec | None = None
    status: Status | str | None = None
    """A word where the answer is no object but a Status."""


@dataclass(slots=True)
class _User:
    username: str = ""


@dataclass(slots=True)
class _Reference:
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


@dataclass(slots=True)
class _ResponseStatus:
    code: int = 0


@dataclass(slots=True)
class _Event:
    stage: str
    verb: str
    requestReceivedTimestamp: datetime
    auditID: str = ""
    user: _User = field(default_factory=_User)
    impersonatedUser: _User | None = None
    objectRef: _Reference = field(default_factory=_Reference)
    responseStatus: _ResponseStatus = field(default_factory=_ResponseStatus)
    responseObject: _Answer | None = None
    annotations: dict[str, str] | None = None


_NO_ANSWER = _Answer()
_EVENT = TypeAdapter(_Event)
_ACCESS_RECORD = TypeAdapter(AccessRecord)
