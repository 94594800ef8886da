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
from clusters.kubevirt.controller.objects import (
    API_VERSIONS,
    FINAL_PHASES,
    FOREGROUND_FINALIZER,
    NODE_LABEL,
    condition,
    format_time,
    has_api_versions,
    is_deleting,
    is_final,
    make_condition,
    parse_time,
    phase_of,
    set_phase,
    status_of,
    with_condition,
    without_condition,
)
from clusters.kubevirt.controller.writes import Create, Delete, Patch, Replace, Write, json_patch
from virtflow.kube import Object
from virtflow.kube.resources import PODS, VMIS

__all__ = ["HANDLER_TIME", "awaits_handler", "failed_create", "plan"]

HANDLER_TIME = timedelta(seconds=10)
"""How long virt-handler has to report a deleted guest's end itself: kwok's pods are gone before any guest could
have shut down, and without this an orderly stop would now and then look like a failure."""

HANDLER_PHASES = ("Scheduled", "Running")
UNPAUSED = "kubevirt.io/virtual-machine-unpaused"


def plan(vmi: Object, pod: Object | None, now: datetime) -> list[Write]:
    """What brings a VMI and its pod forward. Nothing when all is as it should be."""
    if not has_api_versions(vmi) or "phase" not in status_of(vmi):
        return [Replace(VMIS, complete(vmi))]
    if pod is None and phase_of(vmi) == "Pending" and not is_deleting(vmi):
        return [create_pod(vmi)]
    writes = pod_writes(vmi, pod, now)
    if pod is not None and any(isinstance(write, Delete) for write in writes):
        # The next pass may find it gone already; that it was going is to be said before.
        pod = {**pod, "metadata": {**pod["metadata"], "deletionTimestamp": format_time(now)}}
    return [*writes, *own_writes(vmi, advance(vmi, pod, now))]


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
    if is_deleting(vmi) or is_final(vmi):
        done = Note(vmi, "Normal", "SuccessfulDelete", "Deleted virtual machine pod {name}")
        return [Delete(PODS, pod, done)]
    writes: list[Write] = []
    # kwok sets the condition too, but without a reason; the reason tells whose it is.
    if (condition(pod, UNPAUSED) or {}).get("reason") != "NotPaused":
        unpaused = make_condition(UNPAUSED, "True", "NotPaused", "the virtual machine is not paused", now)
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


def advance(vmi: Object, pod: Object | None, now: datetime) -> Object:
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
    finalizers = new["metadata"].get("finalizers", [])
    if phase in FINAL_PHASES and pod is None and is_deleting(vmi) and FOREGROUND_FINALIZER in finalizers:
        new["metadata"]["finalizers"] = [each for each in finalizers if each != FOREGROUND_FINALIZER]
    return new


def next_phase(vmi: Object, pod: Object | None, now: datetime) -> str:
    phase = phase_of(vmi)
    gone = pod is None or status_of(pod).get("phase") in FINAL_PHASES
    match phase:
        case "Pending":
            return "Failed" if gone else "Scheduling"
        case "Scheduling" if not gone and pod is not None:
            return "Scheduled" if is_ready(pod) and not is_deleting(vmi) else phase
        case "Scheduling" | "Scheduled" | "Running" if gone and not awaits_handler(vmi, now):
            return "Failed"
        case _:
            return phase


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
    if is_deleting(pod):
        message = "virt-launcher pod is terminating"
        result = with_condition(result, make_condition("Ready", "False", "PodTerminating", message, now))
    elif phase in ("Scheduling", "Scheduled"):
        message = "Guest VM is not reported as running"
        result = with_condition(result, make_condition("Ready", "False", "GuestNotRunning", message, now))
    scheduling = condition(pod, "PodScheduled")
    if scheduling is None or scheduling["status"] == "True":
        return without_condition(result, "PodScheduled")
    fields = ("type", "status", "reason", "message", "lastTransitionTime")
    copied = {field: scheduling[field] for field in fields if field in scheduling}
    copied.setdefault("lastTransitionTime", format_time(now))
    return with_condition(result, {**copied, "lastProbeTime": None})
