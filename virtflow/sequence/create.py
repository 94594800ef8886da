"""The create sequence, arrows 3 to 11, as writes that its actors must have made, each tied to the one before.

Arrow 1 is the gateway's access record and arrow 2 its reviews; both carry the request id of arrow 3's write.
Arrows 5, 7 and 9 are a watch's delivery or a process's start: the next write of their actor is their proof.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from virtflow.sequence.audit import Write
from workflows.models import ObservedArrow, VirtualMachineRef

__all__ = ["observe_create"]

GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"
VIRT_CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
VIRT_HANDLER = "system:serviceaccount:kubevirt:kubevirt-handler"
SCHEDULER = "system:kube-scheduler"
KUBELET = "system:kwok-controller"


@dataclass(frozen=True)
class _Arrow:
    number: int
    title: str
    actor: str
    proof: Callable[[Write, dict[str, Any]], bool]
    """Whether a write of the actor is this arrow's proof, given what earlier arrows tied down."""
    ties: Callable[[Write], dict[str, Any]] = lambda _: {}


def observe_create(writes: Sequence[Write], machine: VirtualMachineRef) -> list[ObservedArrow]:
    """Each arrow with its first proof that comes after the proof of the arrow before it."""
    known: dict[str, Any] = {"vm": machine.uid, "name": machine.name}
    observed: list[ObservedArrow] = []
    position, first = 0, None
    for arrow in _ARROWS:
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
        write, position = writes[found], found + 1
        first = first or write.at
        known |= arrow.ties(write)
        observed.append(ObservedArrow(arrow.number, arrow.title, arrow.actor, observed=True, after=write.at - first))
    return observed


def _creates_vm(write: Write, known: dict[str, Any]) -> bool:
    return (
        write.verb == "create"
        and write.resource == "virtualmachines"
        and write.impersonated is not None
        and _uid(write) == known["vm"]
    )


def _creates_vmi(write: Write, known: dict[str, Any]) -> bool:
    return write.verb == "create" and write.resource == "virtualmachineinstances" and _owner(write) == known["vm"]


def _creates_pod(write: Write, known: dict[str, Any]) -> bool:
    return (
        write.verb == "create" and write.resource == "pods" and not write.subresource and _owned(write, known, "vmi")
    )


def _binds_pod(write: Write, known: dict[str, Any]) -> bool:
    return write.subresource == "binding" and write.name == known.get("pod")


def _starts_pod(write: Write, known: dict[str, Any]) -> bool:
    return write.resource == "pods" and write.name == known.get("pod") and _phase(write) == "Running"


def _runs_vmi(write: Write, known: dict[str, Any]) -> bool:
    is_instance = write.resource == "virtualmachineinstances" and "vmi" in known and _uid(write) == known["vmi"]
    return is_instance and _phase(write) == "Running"


def _reports_vm(write: Write, known: dict[str, Any]) -> bool:
    status = write.answer.get("status", {})
    is_machine = write.resource == "virtualmachines" and _uid(write) == known["vm"]
    return is_machine and status.get("printableStatus") == "Running" and bool(status.get("ready"))


def _uid(write: Write) -> Any:
    return write.answer.get("metadata", {}).get("uid")


def _owner(write: Write) -> Any:
    owners = write.answer.get("metadata", {}).get("ownerReferences", [])
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _owned(write: Write, known: dict[str, Any], owner: str) -> bool:
    return owner in known and _owner(write) == known[owner]


def _phase(write: Write) -> Any:
    return write.answer.get("status", {}).get("phase")


_ARROWS = (
    _Arrow(4, "create VirtualMachine", GATEWAY, _creates_vm),
    _Arrow(6, "create VMI", VIRT_CONTROLLER, _creates_vmi, lambda write: {"vmi": _uid(write)}),
    _Arrow(6, "create virt-launcher Pod", VIRT_CONTROLLER, _creates_pod, lambda write: {"pod": write.name}),
    _Arrow(8, "bind Pod", SCHEDULER, _binds_pod),
    _Arrow(9, "Pod Running", KUBELET, _starts_pod),
    _Arrow(10, "VMI Running", VIRT_HANDLER, _runs_vmi),
    _Arrow(11, "VM Running and ready", VIRT_CONTROLLER, _reports_vm),
)
