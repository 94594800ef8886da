"""What must come before what across objects: no controller can have acted on what was not there yet."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.conformance.course import LIFE, Step

__all__ = ["CAUSES", "Moment", "too_early"]

VM, VMI, VMIRS, POD = (
    "VirtualMachine",
    "VirtualMachineInstance",
    "VirtualMachineInstanceReplicaSet",
    "Pod",
)


@dataclass(frozen=True)
class Moment:
    """Steps of one kind: those whose actor and value begin so."""

    kind: str
    aspect: str
    told: str

    def is_of(self, step: Step) -> bool:
        return (step.kind, step.aspect) == (self.kind, self.aspect) and f"{step.actor} {step.value}".startswith(
            self.told
        )


FINALIZER = "finalizer kubevirt.io/virtualMachineControllerFinalize"
CONTROLLER = "virt-controller"

CAUSES: tuple[tuple[Moment, Moment], ...] = (
    # A virtual machine starts.
    (Moment(VM, FINALIZER, f"{CONTROLLER} adds"), Moment(VMI, LIFE, f"{CONTROLLER} creates")),
    (Moment("ControllerRevision", LIFE, f"{CONTROLLER} creates"), Moment(VMI, LIFE, f"{CONTROLLER} creates")),
    (Moment(VMIRS, LIFE, "user creates"), Moment(VMI, LIFE, f"{CONTROLLER} creates")),
    (Moment(VMI, LIFE, f"{CONTROLLER} creates"), Moment(POD, LIFE, f"{CONTROLLER} creates")),
    (Moment(VMI, LIFE, f"{CONTROLLER} creates"), Moment(VM, "printableStatus", f"{CONTROLLER} Starting")),
    (Moment(POD, LIFE, f"{CONTROLLER} creates"), Moment(VMI, "phase", f"{CONTROLLER} Scheduling")),
    (Moment(POD, LIFE, "scheduler binds"), Moment(POD, "phase", "node Running")),
    (Moment(POD, "phase", "node Running"), Moment(VMI, "phase", f"{CONTROLLER} Scheduled")),
    (
        Moment(VMI, "phase", f"{CONTROLLER} Scheduled"),
        Moment(POD, "label kubevirt.io/nodeName", f"{CONTROLLER} adds"),
    ),
    (Moment(VMI, "phase", "virt-handler Running"), Moment(VM, "printableStatus", f"{CONTROLLER} Running")),
    (Moment(VMI, "Ready", "virt-handler True"), Moment(VM, "Ready", f"{CONTROLLER} True")),
    # It cannot.
    (Moment(POD, "PodScheduled", "scheduler False"), Moment(VMI, "PodScheduled", f"{CONTROLLER} False")),
    (Moment(VMI, "PodScheduled", f"{CONTROLLER} False"), Moment(VM, "PodScheduled", f"{CONTROLLER} False")),
    (Moment(POD, LIFE, f"{CONTROLLER} fails to create"), Moment(VMI, "Synchronized", f"{CONTROLLER} False")),
    (Moment(VMI, "Synchronized", f"{CONTROLLER} False"), Moment(VM, "Synchronized", f"{CONTROLLER} False")),
    # It ends.
    (Moment(VM, LIFE, "user deletes"), Moment(VMI, LIFE, f"{CONTROLLER} deletes")),
    (Moment(VM, "spec", "user sets runStrategy=Halted"), Moment(VMI, LIFE, f"{CONTROLLER} deletes")),
    (Moment(VMIRS, LIFE, "user deletes"), Moment(VMI, LIFE, "garbage-collector deletes")),
    (Moment(VMIRS, "spec", "user sets replicas"), Moment(VMI, LIFE, f"{CONTROLLER} deletes")),
    (Moment(VMI, LIFE, f"{CONTROLLER} deletes"), Moment(VMI, "phase", "virt-handler Succeeded")),
    (Moment(VMI, LIFE, f"{CONTROLLER} deletes"), Moment(POD, LIFE, f"{CONTROLLER} deletes")),
    (Moment(VMI, LIFE, "garbage-collector deletes"), Moment(POD, LIFE, f"{CONTROLLER} deletes")),
    (Moment(VMI, LIFE, "user deletes"), Moment(POD, LIFE, f"{CONTROLLER} deletes")),
    (Moment(POD, LIFE, f"{CONTROLLER} deletes"), Moment(VMI, "Ready", f"{CONTROLLER} False (PodTerminating)")),
    (Moment(POD, LIFE, "user deletes"), Moment(VMI, "Ready", f"{CONTROLLER} False (PodTerminating)")),
    (Moment(POD, LIFE, "node deletes"), Moment(VMI, "phase", f"{CONTROLLER} Failed")),
    (Moment(POD, LIFE, "node deletes"), Moment(VMI, "Ready", f"{CONTROLLER} False (PodNotExists)")),
    (Moment(VMI, "phase", f"{CONTROLLER} Failed"), Moment(VMI, LIFE, f"{CONTROLLER} deletes")),
    (Moment(VMI, FINALIZER, f"{CONTROLLER} removes"), Moment(VM, FINALIZER, f"{CONTROLLER} removes")),
    (Moment(VM, FINALIZER, f"{CONTROLLER} removes"), Moment("ControllerRevision", LIFE, "garbage-collector deletes")),
)


def too_early(steps: Iterable[Step]) -> list[tuple[Step, Step]]:
    """Each step that came before its cause, with the cause. What has no cause on record is not judged here."""
    in_order = sorted(steps, key=lambda step: step.at)
    found = []
    for cause, effect in CAUSES:
        causes, effects = list(filter(cause.is_of, in_order)), list(filter(effect.is_of, in_order))
        for step in effects:
            of_it = [each for each in causes if is_related(each, step)]
            if of_it and of_it[0].at > step.at:
                found.append((step, of_it[0]))
    return found


def is_related(one: Step, other: Step) -> bool:
    """Whether the two are of one family: a machine, its revision, its instance, the instance's pod. Names tell."""
    if one.kind == other.kind:
        return (one.name, one.life) == (other.name, other.life)
    if "ControllerRevision" in (one.kind, other.kind):
        return True
    shorter, longer = sorted((_machine(one), _machine(other)), key=len)
    return shorter == longer or (VMIRS in (one.kind, other.kind) and longer.startswith(shorter))


def _machine(step: Step) -> str:
    return step.name.removeprefix("virt-launcher-").rpartition("-")[0] if step.kind == POD else step.name
