"""How a virtual machine comes back: its launcher pod's end, and then the arrows of a start, for the same machine.

It begins with the pod's end, because nothing may be started before: two launchers of one machine would write to one
disk. Who orders it is in which the faults differ: a node's failure has a controller for that, a kill its killer.
"""

from collections.abc import Sequence
from typing import Any

from virtflow.sequence.audit import Write
from virtflow.sequence.create import MACHINE, Arrow, observe_arrows
from workflows.fault_models import Instance
from workflows.models import ObservedArrow, VirtualMachineRef

__all__ = ["NODE_CONTROLLER", "observe_recovery"]

NODE_CONTROLLER = "system:serviceaccount:kube-system:node-controller"
"""It evicts the pods of a node that has failed."""


def observe_recovery(
    machine: VirtualMachineRef, before: Instance, ended_by: str, writes: Sequence[Write]
) -> list[ObservedArrow]:
    """Each arrow with its first proof after the arrow before it; `writes` are those about the machine, by arrival.

    The launcher's end has its proof only if the user `ended_by` was the first to order it: when the guest has ended,
    the kubelet does, too.
    """
    ended = next((write for write in writes if _ends_launcher(write, before.uid)), None)

    def is_the_end(write: Write, _known: dict[str, Any]) -> bool:
        return write is ended

    end = Arrow(0, "delete virt-launcher Pod", ended_by, is_the_end)
    return observe_arrows([end, *MACHINE], writes, {"vm": machine.uid})


def _ends_launcher(write: Write, instance: str) -> bool:
    is_pod = write.verb == "delete" and write.resource == "pods"
    return is_pod and write.owner is not None and write.owner.uid == instance
