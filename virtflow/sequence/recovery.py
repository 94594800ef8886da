"""How a virtual machine comes back: its launcher pod's end, and then the arrows of a start, for the same machine.

It begins with the pod's end, because nothing may be started before: two launchers of one machine would write to one
disk. Who ended it is part of what is observed, not of what is asked for: the node's failure and a kill differ in it.
"""

from collections.abc import Sequence
from typing import Any

from virtflow.sequence.audit import Write
from virtflow.sequence.create import MACHINE, Arrow, observe_arrows
from workflows.fault_models import Instance
from workflows.models import ObservedArrow, VirtualMachineRef

__all__ = ["observe_recovery"]

NOBODY = "nobody"


def observe_recovery(machine: VirtualMachineRef, before: Instance, writes: Sequence[Write]) -> list[ObservedArrow]:
    """Each arrow with its first proof after the arrow before it; `writes` are those about the machine, by arrival."""
    ended = next((write for write in writes if _ends_launcher(write, before.uid)), None)

    def is_the_end(write: Write, _known: dict[str, Any]) -> bool:
        return write is ended

    end = Arrow(0, "delete virt-launcher Pod", ended.user if ended else NOBODY, is_the_end)
    return observe_arrows([end, *MACHINE], writes, {"vm": machine.uid})


def _ends_launcher(write: Write, instance: str) -> bool:
    is_pod = write.verb == "delete" and write.resource == "pods"
    return is_pod and write.owner is not None and write.owner.uid == instance
