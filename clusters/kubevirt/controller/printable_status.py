"""`status.printableStatus` of a VirtualMachine: the one word that `kubectl get vm` shows.

More than one may be true of it at a time; the first that is, in KubeVirt's order, is shown.
"""

from clusters.kubevirt.objects import has_condition, is_deleting, is_final, phase_of
from virtflow.kube import Object

__all__ = ["printable_status"]


def printable_status(vm: Object, vmi: Object | None, failure: Object | None) -> str:
    """`failure` is what the VM's `status.startFailure` is to say."""
    if is_deleting(vm):
        return "Terminating"
    if vmi is None or is_final(vmi):
        return "CrashLoopBackOff" if failure else "Stopped"
    if is_deleting(vmi):
        return "Stopping"
    if phase_of(vmi) == "Running":
        return "Paused" if has_condition(vmi, "Paused", "True") else "Running"
    if has_condition(vmi, "PodScheduled", "False", "Unschedulable"):
        return "ErrorUnschedulable"
    return "Starting"
