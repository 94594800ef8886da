"""VirtualMachineInstance: its launcher pod, and its phases up to Scheduled and at the end.

Phases follow the pod: none yet is Pending, there is Scheduling, ready is Scheduled; from there virt-handler
has the instance and this side only sees to its end. As long as virt-handler may be writing too, what changes
is patched on condition that it was as seen; before and after, the whole object is replaced.
"""

from copy import deepcopy
from datetime import datetime, timedelta

from clusters.kubevirt.api.mutate import mutate_new_instance
from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.controller.events import Note
from clusters.kubevirt.controller.launcher import launcher_pod
from clusters.kubevirt.controller.writes import Create, Delete, Patch, Replace, Write
from clusters.kubevirt.objects import (
    API_VERSIONS,
    CONTROLLER_FINALIZER,
    FINAL_PHASES,
    FOREGROUND_FINALIZER,
    NODE_LABEL,
    condition,
    format_time,
    has_api_versions,
    has_condition,
    is_deleting,
    is_final,
    json_patch,
    make_condition,
    parse_time,
    phase_of,
    set_phase,
    status_of,
    with_condition,
    without_condition,
)
from virtflow.kube import Object
from virtflow.kube.resources import PODS, VMIS

__all__ = ["HANDLER_PHASES", "HANDLER_TIME", "awaits_handler", "failed_create", "is_down", "plan"]

HANDLER_TIME = timedelta(seconds=10)
"""How long virt-handler has to report a deleted guest's end itself: kwok's pods are gone before any guest could
have shut down, and without this an orderly stop would now and then look like a failure."""

HANDLER_PHASES = ("Scheduled", "Running")
UNPAUSED = "kubevirt.io/virtual-machine-unpaused"
PAUSED_POD = ("False", "Paused", "the virtual machine is paused")
UNPAUSED_POD = ("True", "NotPaused", "the virtual machine is not paused")


def plan(vmi: Object, pod: Object | None, now: datetime, *, has_vm: bool = False) -> list[Write]:
    """What brings a VMI and its pod forward. Nothing when all is as it should be.

    `has_vm` says whether the VM that owns it is there; without one its finalizer is nobody else's to remove.
    """
    if not has_api_versions(vmi) or "phase" not in status_of(vmi):
        return [Replace(VMIS, complete(vmi))]
    if pod is None and phase_of(vmi) == "Pending" and not is_deleting(vmi):
        return [create_pod(vmi)]
    writes = pod_writes(vmi, pod, now)
    if pod is not None and any(isinstance(write, Delete) for write in writes):
        # The next pass may find it gone already; that it was going is to be said before.
        pod = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": format_time(now)}}
    return [*writes, *own_writes(vmi, advance(vmi, pod, now, has_vm=has_vm))]


def complete(vmi: Object) -> Object:
    """The VMI with what everything after this takes for granted, the webhook's part too if it was not asked."""
    new = deepcopy(vmi) if "phase" in status_of(vmi) else mutate_new_instance(vmi)
    new["metadata"].setdefault("annotations", {}).update(API_VERSIONS)
    if is_deleting(vmi):
        # The API refuses to add one now.
        new["metadata"]["finalizers"] = vmi["metadata"]["finalizers"]
    return new


def create_pod(vmi: Object) -> Create:
    done = Note(vmi, "Normal", "SuccessfulCreate", "Created virtual machine pod {name}")
    refused = Note(vmi, "Warning", "FailedCreate", "Error creating pod: {error}")
    return Create(PODS, launcher_pod(vmi), done, refused)


def failed_create(vmi: Object, error: str, now: datetime) -> list[Write]:
    """What a VMI says of itself when its pod was refused, by a quota for example."""
    new = deepcopy(vmi)
    missing = make_condition("Ready", "False", "PodNotExists", POD_NOT_EXISTS, now)
    failure = make_condition(
        "Synchronized", "False", "FailedCreate", f"failed to create virtual machine pod: {error}", now
    )
    failure["lastProbeTime"] = None
    conditions = new["status"].get("conditions", [])
    new["status"]["conditions"] = with_condition(with_condition(conditions, missing), failure)
    return own_writes(vmi, new)


def pod_writes(vmi: Object, pod: Object | None, now: datetime) -> list[Write]:
    if pod is None or is_deleting(pod):
        return []
    if is_deleting(vmi):
        done = Note(vmi, "Normal", "SuccessfulDelete", "Deleted virtual machine pod {name}")
        return [Delete(PODS, pod, done)]
    if is_down(pod):
        return []
    writes: list[Write] = []
    paused = has_condition(vmi, "Paused", "True")
    status, reason, text = PAUSED_POD if paused else UNPAUSED_POD
    # kwok sets the condition too, but without a reason; the reason tells whose it is.
    if (condition(pod, UNPAUSED) or {}).get("reason") != reason:
        unpaused = make_condition(UNPAUSED, status, reason, text, now)
        patch = {"status": {"conditions": [unpaused]}}
        writes.append(Patch(PODS, pod, patch, kind="strategic", subresource="status"))
    labels = pod["metadata"]["labels"]
    if phase_of(vmi) in HANDLER_PHASES and NODE_LABEL not in labels:
        labelled = {**labels, NODE_LABEL: vmi["status"]["nodeName"]}
        writes.append(Patch(PODS, pod, json_patch("/metadata/labels", labels, labelled)))
    return writes


def own_writes(vmi: Object, new: Object) -> list[Write]:
    if new == vmi:
        return []
    before_handler = phase_of(vmi) not in (*HANDLER_PHASES, *FINAL_PHASES)
    if before_handler or new["metadata"] != vmi["metadata"]:
        return [Replace(VMIS, new)]
    old_status, status = vmi["status"], new["status"]
    operations = [
        operation
        for field in status
        if status[field] != old_status.get(field)
        for operation in json_patch(f"/status/{field}", old_status.get(field), status[field])
    ]
    return [Patch(VMIS, vmi, operations)]


def advance(vmi: Object, pod: Object | None, now: datetime, *, has_vm: bool) -> Object:
    """The VMI as it should be, given its pod."""
    new = deepcopy(vmi)
    status = new["status"]
    phase = next_phase(vmi, pod, now)
    if phase != status["phase"]:
        set_phase(status, phase, now)
    if pod is not None:
        status.update(facts_of(pod))
        status["memory"] = {**status.get("memory", {}), "memoryOverhead": overhead_of(pod)}
    # The node is entered together with the next phase, which spares a write for each instance.
    scheduled = pod is not None and phase in HANDLER_PHASES
    if pod is None:
        status["activePods"] = {}
    elif not is_final(vmi):
        status["activePods"] = {pod["metadata"]["uid"]: pod["spec"].get("nodeName", "") if scheduled else ""}
    if scheduled and phase_of(vmi) == "Scheduling" and pod is not None:
        place(new, pod)
    status["conditions"] = conditions(vmi, phase, pod, now)
    over = set()
    if phase in FINAL_PHASES and pod is None and is_deleting(vmi):
        over.add(FOREGROUND_FINALIZER)
    if is_final(vmi) and not has_vm:
        over.add(CONTROLLER_FINALIZER)
    if over & set(finalizers := new["metadata"].get("finalizers", [])):
        new["metadata"]["finalizers"] = [each for each in finalizers if each not in over]
    return new


def next_phase(vmi: Object, pod: Object | None, now: datetime) -> str:
    """From Scheduled on, a pod that ended is virt-handler's to tell of: it knows how."""
    phase = phase_of(vmi)
    match phase:
        case "Pending":
            return "Failed" if pod is None or is_down(pod) else "Scheduling"
        case "Scheduling" if pod is not None and is_ready(pod):
            return phase if is_deleting(vmi) else "Scheduled"
        case "Scheduling":
            return "Failed" if pod is None or is_down(pod) or is_deleting(pod) else phase
        case "Scheduled" | "Running" if pod is None and not awaits_handler(vmi, now):
            return "Failed"
        case _:
            return phase


def is_down(pod: Object) -> bool:
    return status_of(pod).get("phase") in FINAL_PHASES


def awaits_handler(vmi: Object, now: datetime) -> bool:
    """Whether the end of a deleted guest is still virt-handler's to report."""
    if not is_deleting(vmi) or phase_of(vmi) not in HANDLER_PHASES:
        return False
    return now - parse_time(vmi["metadata"]["deletionTimestamp"]) < HANDLER_TIME


def is_ready(pod: Object) -> bool:
    status = status_of(pod)
    containers = status.get("containerStatuses", [])
    return status.get("phase") == "Running" and not is_deleting(pod) and any(each["ready"] for each in containers)


def facts_of(pod: Object) -> Object:
    facts = {"launcherContainerImageVersion": pod["spec"]["containers"][0]["image"]}
    if "qosClass" in status_of(pod):
        facts["qosClass"] = pod["status"]["qosClass"]
    return facts


def overhead_of(pod: Object) -> str:
    overhead = pod["metadata"]["annotations"]["kubevirt.io/memory-overhead-bytes"]
    return str(Quantity(Quantity.parse(overhead).amount, "Ki"))


def place(vmi: Object, pod: Object) -> None:
    node, spec, status = pod["spec"]["nodeName"], vmi["spec"], vmi["status"]
    vmi["metadata"].setdefault("labels", {})[NODE_LABEL] = node
    status["nodeName"] = node
    status["migrationTransport"] = "Unix"
    status["interfaces"] = [
        {"name": interface["name"], "podInterfaceName": f"eth{index}"}
        for index, interface in enumerate(spec["domain"]["devices"].get("interfaces", []))
    ]
    if "volumes" in spec:
        status["volumeStatus"] = [{"name": volume["name"], "target": ""} for volume in spec["volumes"]]


POD_NOT_EXISTS = "virt-launcher pod has not yet been scheduled"


def conditions(vmi: Object, phase: str, pod: Object | None, now: datetime) -> list[Object]:
    result: list[Object] = vmi["status"].get("conditions", [])
    if pod is None:
        return with_condition(result, make_condition("Ready", "False", "PodNotExists", POD_NOT_EXISTS, now))
    result = without_condition(result, "Synchronized")
    if is_deleting(pod) or is_down(pod):
        message = "virt-launcher pod is terminating"
        result = with_condition(result, make_condition("Ready", "False", "PodTerminating", message, now))
    elif phase in ("Scheduling", "Scheduled"):
        message = "Guest VM is not reported as running"
        result = with_condition(result, make_condition("Ready", "False", "GuestNotRunning", message, now))
    elif phase == "Running":
        result = with_condition(result, ready_as(pod, now))
    scheduling = condition(pod, "PodScheduled")
    if scheduling is None or scheduling["status"] == "True":
        return without_condition(result, "PodScheduled")
    return with_condition(result, copied(scheduling, now))


def ready_as(pod: Object, now: datetime) -> Object:
    """The Ready of an instance that runs: its pod's."""
    found = condition(pod, "Ready")
    if found is None:
        message = "virt-launcher pod is missing the Ready condition"
        return make_condition("Ready", "False", "PodConditionMissing", message, now)
    return copied(found, now)


def copied(of_pod: Object, now: datetime) -> Object:
    """A pod's condition as an instance has it."""
    fields = ("type", "status", "reason", "message", "lastTransitionTime")
    copy = {field: of_pod[field] for field in fields if field in of_pod}
    copy.setdefault("lastTransitionTime", format_time(now))
    return {**copy, "lastProbeTime": None}
