"""What must hold of an instance before its node, or its guest, is asked to do something.

Only the two messages of pause and unpause differ in who is said not to run: that is KubeVirt's wording.
"""

from clusters.kubevirt.api.refusals import Refused
from clusters.kubevirt.api.subresources.statuses import VMI, conflict, forbidden
from virtflow.kube import Object

__all__ = ["check_pause", "check_unpause", "no_agent"]


def check_pause(vmi: Object) -> None:
    name = vmi["metadata"]["name"]
    if not is_running(vmi):
        raise conflict(VMI, name, "VM is not running")
    if vmi["spec"].get("livenessProbe") is not None:
        raise forbidden(VMI, name, "Pausing VMIs with LivenessProbe is currently not supported")
    if has_condition(vmi, "Paused"):
        raise conflict(VMI, name, "VMI is already paused")


def check_unpause(vmi: Object) -> None:
    name = vmi["metadata"]["name"]
    if not is_running(vmi):
        raise conflict(VMI, name, "VMI is not running")
    if not has_condition(vmi, "Paused"):
        raise conflict(VMI, name, "VMI is not paused")


def no_agent(vmi: Object) -> Refused:
    """The answer to what only an agent in the guest could tell: no guest here has one."""
    why = "VMI does not have guest agent connected" if is_running(vmi) else "VMI is not running"
    return conflict(VMI, vmi["metadata"]["name"], why)


def is_running(vmi: Object) -> bool:
    running: bool = vmi.get("status", {}).get("phase") == "Running"
    return running


def has_condition(vmi: Object, kind: str) -> bool:
    return any(each["type"] == kind for each in vmi["status"].get("conditions", ()))
