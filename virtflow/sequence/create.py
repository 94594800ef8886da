"""The create sequence, arrows 1 to 11, as records that its actors must have left, each tied to the one before.

Arrow 1 is the gateway's access record, arrow 2 its two reviews, arrow 3 its write in the tenant's name, which
bears virt-api's mark: one request id runs through all four. Arrow 4 is the answer to that same write, and from
its uid on owner references lead the way. Arrows 5, 7 and 9 are a watch's delivery or a process's start: the
next write of their actor is their proof.

The order is that of arrival at the kube-apiserver, so it is one clock's (`records.py` says why not the log's own).
The access record has another's, and is written at the request's end: that it is there counts, not when.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from clusters.gateway import ACCESS_REVIEW_SUFFIX, TOKEN_REVIEW_SUFFIX
from virtflow.sequence.audit import AccessRecord, Write
from workflows.models import CreateEvidence, ObservedArrow
from workflows.tenant_models import Tenant

__all__ = ["ACTORS", "MACHINE", "REQUEST", "audit_ids", "observe_arrows", "observe_request_and_create"]

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


def audit_ids(request_id: str) -> tuple[str, str, str]:
    """Of a gateway's request: its TokenReview, its SubjectAccessReview, the write itself."""
    return request_id + TOKEN_REVIEW_SUFFIX, request_id + ACCESS_REVIEW_SUFFIX, request_id


def observe_request_and_create(
    evidence: CreateEvidence, records: Sequence[AccessRecord], writes: Sequence[Write]
) -> list[ObservedArrow]:
    """Arrows 1 to 11. `records` are the access log's of the request, `writes` those that `audit_ids` let in too."""
    machine, user = evidence.machine, _username(evidence.tenant)
    token_review, access_review, write = audit_ids(evidence.request_id)
    known: dict[str, Any] = {
        "vm": machine.uid,
        "tenant": user,
        "token review": token_review,
        "access review": access_review,
        "write": write,
    }
    recorded = any(_is_record(record, evidence) for record in records)
    asked = ObservedArrow(1, "POST virtualmachines", user, recorded, timedelta() if recorded else None)
    return [asked, *observe_arrows((*REQUEST, *MACHINE), writes, known)]


def observe_arrows(arrows: Sequence[Arrow], writes: Sequence[Write], known: dict[str, Any]) -> list[ObservedArrow]:
    """Each arrow with its first proof that does not come before the proof of the arrow before it."""
    observed: list[ObservedArrow] = []
    position = 0
    first: datetime | None = None
    for arrow in arrows:
        found = next(
            (
                index
                for index in range(position, len(writes))
                if writes[index].user == arrow.actor and arrow.proof(writes[index], known)
            ),
            None,
        )
        if found is None:
            observed.append(ObservedArrow(arrow.number, arrow.title, arrow.actor, observed=False))
            continue
        # Not the one after it: arrows 3 and 4 are one event. No other write can be a proof of two.
        write, position = writes[found], found
        first = first or write.at
        known |= arrow.ties(write)
        observed.append(
            ObservedArrow(arrow.number, arrow.title, arrow.actor, observed=True, after=write.at - first, at=write.at)
        )
    return observed


def _username(tenant: Tenant) -> str:
    return f"system:serviceaccount:{tenant.namespace}:{tenant.user}"


def _is_record(record: AccessRecord, evidence: CreateEvidence) -> bool:
    return record == AccessRecord(
        request_id=evidence.request_id,
        user=_username(evidence.tenant),
        tenant=evidence.tenant.namespace,
        namespace=evidence.machine.namespace,
        verb="create",
        code=201,
        verdict="allowed",
    )


def _reviews_token(write: Write, known: dict[str, Any]) -> bool:
    return write.verb == "create" and write.resource == "tokenreviews" and write.audit_id == known["token review"]


def _reviews_access(write: Write, known: dict[str, Any]) -> bool:
    is_review = write.verb == "create" and write.resource == "subjectaccessreviews"
    return is_review and write.audit_id == known["access review"]


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
