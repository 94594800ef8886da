"""The create sequence, arrows 1 to 11, as records that its actors must have left, each tied to the one before.

Arrow 1 is the gateway's access record, arrow 2 its two reviews, arrow 3 its write in the tenant's name, which
bears virt-api's mark: one request id runs through all four. Arrow 4 is the answer to that same write, and from
its uid on owner references lead the way. Arrows 5, 7 and 9 are a watch's delivery or a process's start: the
next write of their actor is their proof.

A review may be an earlier request's: then the access record names it, and it is a proof as long as the gateway uses
one (`LIFETIME`, and what the request itself took). It may have come before the sequence's beginning.

The order is that of arrival at the kube-apiserver, so it is one clock's (`records.py` says why not the log's own).
The access record has another's, and is written at the request's end: that it is there counts, not when.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from clusters.gateway import ACCESS_REVIEW_SUFFIX, TOKEN_REVIEW_SUFFIX
from clusters.gateway.cache import LIFETIME
from virtflow.sequence.audit import AccessRecord, Write
from workflows.models import CreateEvidence, ObservedArrow
from workflows.tenant_models import Tenant

__all__ = ["ACTORS", "MACHINE", "REQUEST", "Arrow", "observe_arrows", "observe_request_and_create", "review_ids"]

GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"
VIRT_CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
VIRT_HANDLER = "system:serviceaccount:kubevirt:kubevirt-handler"
SCHEDULER = "system:kube-scheduler"
KUBELET = "system:kwok-controller"
MUTATOR = ("virt-api-mutator", "virtualmachines-mutator.kubevirt.io")
"""virt-api's configuration and webhook, as the kube-apiserver notes them in the event of what they admitted."""


@dataclass(frozen=True)
class Arrow:
    number: int
    title: str
    actor: str
    proof: Callable[[Write, dict[str, Any]], bool]
    """Whether a write of the actor is this arrow's proof, given what earlier arrows tied down."""
    ties: Callable[[Write], dict[str, Any]] = lambda _: {}
    is_earlier: bool = False
    """Whether an earlier request left its proof: in any order, and not as the sequence's beginning."""


def review_ids(request_id: str, records: Sequence[AccessRecord]) -> set[str]:
    """Audit-IDs of the reviews that may prove a request: those its records name, and its own."""
    own = {request_id + TOKEN_REVIEW_SUFFIX, request_id + ACCESS_REVIEW_SUFFIX}
    return own | {review for record in records for review in (record.token_review, record.access_review)}


def observe_request_and_create(
    evidence: CreateEvidence, records: Sequence[AccessRecord], writes: Sequence[Write]
) -> list[ObservedArrow]:
    """Arrows 1 to 11. `records` are the access log's of the request, `writes` those that `review_ids` let in too."""
    machine, user, request_id = evidence.machine, _username(evidence.tenant), evidence.request_id
    record = next((record for record in records if _is_record(record, evidence)), None)
    known: dict[str, Any] = {
        "vm": machine.uid,
        "tenant": user,
        "token review": record.token_review if record else request_id + TOKEN_REVIEW_SUFFIX,
        "access review": record.access_review if record else request_id + ACCESS_REVIEW_SUFFIX,
        "reviews hold since": _reviews_hold_since(request_id, record, writes),
        "write": request_id,
    }
    token_review, access_review, *rest = REQUEST
    arrows = [
        replace(token_review, is_earlier=not known["token review"].startswith(request_id)),
        replace(access_review, is_earlier=not known["access review"].startswith(request_id)),
        *rest,
        *MACHINE,
    ]
    after = timedelta() if record else None
    asked = ObservedArrow(1, "POST virtualmachines", user, record is not None, after)
    return [asked, *observe_arrows(arrows, writes, known)]


def observe_arrows(arrows: Sequence[Arrow], writes: Sequence[Write], known: dict[str, Any]) -> list[ObservedArrow]:
    """Each arrow with its first proof that does not come before the proof of the arrow before it."""
    proofs: list[tuple[Arrow, Write | None]] = []
    position = 0
    for arrow in arrows:
        found = next(
            (
                index
                for index in range(0 if arrow.is_earlier else position, len(writes))
                if writes[index].user == arrow.actor and arrow.proof(writes[index], known)
            ),
            None,
        )
        if found is None:
            proofs.append((arrow, None))
            continue
        # Not the one after it: arrows 3 and 4 are one event. No other write can be a proof of two.
        write, position = writes[found], max(position, found)
        known |= arrow.ties(write)
        proofs.append((arrow, write))
    begin = next((write.at for arrow, write in proofs if write and not arrow.is_earlier), None)
    return [_observed(arrow, write, begin) for arrow, write in proofs]


def _observed(arrow: Arrow, write: Write | None, begin: datetime | None) -> ObservedArrow:
    if write is None:
        return ObservedArrow(arrow.number, arrow.title, arrow.actor, observed=False)
    after = write.at - (begin or write.at)
    return ObservedArrow(arrow.number, arrow.title, arrow.actor, observed=True, after=after, at=write.at)


def _reviews_hold_since(request_id: str, record: AccessRecord | None, writes: Sequence[Write]) -> datetime:
    """The earliest moment of a review that the request may have used, by the kube-apiserver's clock.

    The gateway looks for one after the request's beginning, and the write comes before its end. So this needs of the
    gateway's clock only how long the request took.
    """
    forwarded = next((write for write in writes if write.audit_id == request_id), None)
    if forwarded is None or record is None:
        return datetime.min.replace(tzinfo=UTC)
    return forwarded.at - LIFETIME - timedelta(milliseconds=record.latency_ms)


def _username(tenant: Tenant) -> str:
    return f"system:serviceaccount:{tenant.namespace}:{tenant.user}"


def _is_record(record: AccessRecord, evidence: CreateEvidence) -> bool:
    return record == replace(
        record,
        request_id=evidence.request_id,
        user=_username(evidence.tenant),
        tenant=evidence.tenant.namespace,
        namespace=evidence.machine.namespace,
        verb="create",
        resource="virtualmachines",
        code=201,
        verdict="allowed",
    )


def _reviews_token(write: Write, known: dict[str, Any]) -> bool:
    return write.resource == "tokenreviews" and _is_review(write, "token review", known)


def _reviews_access(write: Write, known: dict[str, Any]) -> bool:
    return write.resource == "subjectaccessreviews" and _is_review(write, "access review", known)


def _is_review(write: Write, which: str, known: dict[str, Any]) -> bool:
    is_used = write.audit_id == known[which] and write.at >= known["reviews hold since"]
    return write.verb == "create" and is_used


def _forwards(write: Write, known: dict[str, Any]) -> bool:
    is_own = write.audit_id == known["write"] and write.impersonated == known["tenant"]
    return is_own and _creates_vm(write, known) and _is_mutated_by_virt_api(write)


def _stores(write: Write, known: dict[str, Any]) -> bool:
    return write is known.get("forwarded") and write.code == 201


def _is_mutated_by_virt_api(write: Write) -> bool:
    notes = (json.loads(note) for note in write.mutations)
    return any((note.get("configuration"), note.get("webhook")) == MUTATOR for note in notes)


def _creates_vm(write: Write, known: dict[str, Any]) -> bool:
    return (
        write.verb == "create"
        and write.resource == "virtualmachines"
        and write.impersonated is not None
        and write.uid == known["vm"]
    )


def _creates_vmi(write: Write, known: dict[str, Any]) -> bool:
    return write.verb == "create" and write.resource == "virtualmachineinstances" and _is_owned(write, known["vm"])


def _creates_pod(write: Write, known: dict[str, Any]) -> bool:
    is_pod = write.resource == "pods" and not write.subresource
    return write.verb == "create" and is_pod and _is_owned(write, known.get("vmi"))


def _binds_pod(write: Write, known: dict[str, Any]) -> bool:
    return write.subresource == "binding" and write.name == known.get("pod")


def _starts_pod(write: Write, known: dict[str, Any]) -> bool:
    return write.resource == "pods" and write.name == known.get("pod") and write.status.phase == "Running"


def _runs_vmi(write: Write, known: dict[str, Any]) -> bool:
    is_instance = write.resource == "virtualmachineinstances" and "vmi" in known and write.uid == known["vmi"]
    return is_instance and write.status.phase == "Running"


def _reports_vm(write: Write, known: dict[str, Any]) -> bool:
    is_machine = write.resource == "virtualmachines" and write.uid == known["vm"]
    return is_machine and write.status.printableStatus == "Running" and write.status.ready


def _is_owned(write: Write, uid: str | None) -> bool:
    return write.owner is not None and write.owner.uid == uid


REQUEST = (
    Arrow(2, "TokenReview", GATEWAY, _reviews_token),
    Arrow(2, "SubjectAccessReview", GATEWAY, _reviews_access),
    Arrow(3, "forward as the tenant, past virt-api", GATEWAY, _forwards, lambda write: {"forwarded": write}),
    Arrow(4, "create VirtualMachine", GATEWAY, _stores),
)
MACHINE = (
    Arrow(6, "create VMI", VIRT_CONTROLLER, _creates_vmi, lambda write: {"vmi": write.uid}),
    Arrow(6, "create virt-launcher Pod", VIRT_CONTROLLER, _creates_pod, lambda write: {"pod": write.name}),
    Arrow(8, "bind Pod", SCHEDULER, _binds_pod),
    Arrow(9, "Pod Running", KUBELET, _starts_pod),
    Arrow(10, "VMI Running", VIRT_HANDLER, _runs_vmi),
    Arrow(11, "VM Running and ready", VIRT_CONTROLLER, _reports_vm),
)
ACTORS = frozenset(arrow.actor for arrow in (*REQUEST, *MACHINE))
"""Nobody else's writes prove anything."""
