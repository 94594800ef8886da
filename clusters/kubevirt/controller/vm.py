"""VirtualMachine: whether its instance should be there, and what is said of it.

Each function looks at the VM and its instance as they are, never at what changed, so a lost event or a
restart costs nothing.
"""

from copy import deepcopy
from datetime import datetime, timedelta

from clusters.kubevirt.controller.events import Note
from clusters.kubevirt.controller.objects import (
    API_VERSIONS,
    CONTROLLER_FINALIZER,
    condition,
    has_api_versions,
    instance_spec,
    is_deleting,
    is_final,
    make_condition,
    owner_reference,
    phase_of,
    status_of,
    with_condition,
)
from clusters.kubevirt.controller.start_failure import next_start_failure, time_left
from clusters.kubevirt.controller.writes import Create, Delete, Patch, Replace, Write, json_patch
from virtflow.kube import Object, Resource
from virtflow.kube.resources import CONTROLLER_REVISIONS, VMIS, VMS

__all__ = ["backoff", "metadata_writes", "spec_writes", "status_writes"]

GENERATION = "kubevirt.io/vm-generation"
STARTING_STRATEGIES = ("Always", "RerunOnFailure", "Once")
RESTARTING_STRATEGIES = ("Always", "RerunOnFailure")


def metadata_writes(vm: Object, vmi: Object | None) -> list[Write]:
    """At most one, of the VM itself: nothing else is to be done before it is in place."""
    finalizers = vm["metadata"].get("finalizers", [])
    if is_deleting(vm):
        if vmi is None and CONTROLLER_FINALIZER in finalizers:
            return [without_finalizer(VMS, vm)]
        return []
    if not has_api_versions(vm):
        new = deepcopy(vm)
        new["metadata"].setdefault("annotations", {}).update(API_VERSIONS)
        return [Replace(VMS, new)]
    if CONTROLLER_FINALIZER not in finalizers:
        new_finalizers = [*finalizers, CONTROLLER_FINALIZER]
        return [Patch(VMS, vm, json_patch("/metadata/finalizers", finalizers or None, new_finalizers))]
    return []


def spec_writes(vm: Object, vmi: Object | None, revisions: list[Object], now: datetime) -> list[Write]:
    """What starts or stops the instance. `vmi` is the VM's own, `revisions` those it has kept."""
    if vmi is None:
        return start(vm, revisions) if should_start(vm, now) else []
    if is_deleting(vmi):
        finalizers = vmi["metadata"].get("finalizers", [])
        # Until here the finalizer has kept the instance from vanishing before its end was seen and counted.
        counted = start_failure(vm, vmi, now) == status_of(vm).get("startFailure")
        if is_final(vmi) and counted and CONTROLLER_FINALIZER in finalizers:
            return [without_finalizer(VMIS, vmi)]
        return []
    writes = follow_generation(vm, vmi, revisions)
    if should_stop(vm, vmi):
        message = f"Stopped the virtual machine by deleting the virtual machine instance {vmi['metadata']['uid']}"
        writes.append(Delete(VMIS, vmi, Note(vm, "Normal", "SuccessfulDelete", message)))
    return writes


def run_strategy(vm: Object) -> str:
    """The strategy, or what the deprecated `running` stands for."""
    spec = vm["spec"]
    strategy: str = spec.get("runStrategy") or ("Always" if spec.get("running") else "Halted")
    return strategy


def should_start(vm: Object, now: datetime) -> bool:
    return not is_deleting(vm) and run_strategy(vm) in STARTING_STRATEGIES and not backoff(vm, now)


def backoff(vm: Object, now: datetime) -> timedelta:
    """How much longer the next start is put off, because the last ones failed; zero if it is not."""
    if run_strategy(vm) not in RESTARTING_STRATEGIES:
        return timedelta(0)
    return time_left(status_of(vm).get("startFailure"), now)


def start_failure(vm: Object, vmi: Object | None, now: datetime) -> Object | None:
    """What `status.startFailure` should be; nothing for a VM that is not to be started by itself."""
    if run_strategy(vm) not in STARTING_STRATEGIES:
        return None
    return next_start_failure(status_of(vm).get("startFailure"), vmi, now)


def should_stop(vm: Object, vmi: Object) -> bool:
    if is_deleting(vm):
        return True
    match run_strategy(vm):
        case "Halted":
            return True
        case "Always":
            return is_final(vmi)
        case "RerunOnFailure":
            return phase_of(vmi) == "Failed"
        case _:
            return False


def start(vm: Object, revisions: list[Object]) -> list[Write]:
    writes: list[Write] = []
    revision = new_revision(vm)
    name = revision["metadata"]["name"]
    known = {each["metadata"]["name"] for each in revisions}
    writes += [Delete(CONTROLLER_REVISIONS, each) for each in revisions if each["metadata"]["name"] != name]
    if name not in known:
        writes.append(Create(CONTROLLER_REVISIONS, revision))
    done = Note(
        vm,
        "Normal",
        "SuccessfulCreate",
        "Started the virtual machine by creating the new virtual machine instance {name}",
    )
    refused = Note(vm, "Warning", "FailedCreate", "Error creating virtual machine instance: {error}")
    return [*writes, Create(VMIS, new_instance(vm, name), done, refused)]


def new_revision(vm: Object) -> Object:
    """The VM as it was started, under a name that only this VM at this generation has."""
    meta = vm["metadata"]
    return {
        "metadata": {
            "name": f"revision-start-vm-{meta['uid']}-{meta['generation']}",
            "namespace": meta["namespace"],
            "ownerReferences": [owner_reference(vm)],
        },
        "data": {"spec": vm["spec"]},
        "revision": meta["generation"],
    }


def new_instance(vm: Object, revision: str) -> Object:
    meta, template = vm["metadata"], deepcopy(vm["spec"]["template"])
    of_template = template.get("metadata", {})
    return {
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": of_template.get("labels", {}),
            "annotations": {**of_template.get("annotations", {}), GENERATION: str(meta["generation"])},
            "finalizers": [CONTROLLER_FINALIZER],
            "ownerReferences": [owner_reference(vm)],
        },
        "spec": instance_spec(template),
        "status": {"virtualMachineRevisionName": revision},
    }


def follow_generation(vm: Object, vmi: Object, revisions: list[Object]) -> list[Write]:
    """Bring the instance's generation up to the VM's, unless the instance runs from another template."""
    annotations = vmi["metadata"].get("annotations", {})
    generation = str(vm["metadata"]["generation"])
    started_from = status_of(vmi).get("virtualMachineRevisionName")
    templates = [each["data"]["spec"]["template"] for each in revisions if each["metadata"]["name"] == started_from]
    if is_deleting(vm) or annotations.get(GENERATION) == generation:
        return []
    if vm["spec"]["template"] not in templates:
        return []
    patch = json_patch("/metadata/annotations", annotations, {**annotations, GENERATION: generation})
    return [Patch(VMIS, vmi, patch)]


def without_finalizer(resource: Resource, obj: Object) -> Patch:
    finalizers = obj["metadata"]["finalizers"]
    left = [each for each in finalizers if each != CONTROLLER_FINALIZER]
    return Patch(resource, obj, json_patch("/metadata/finalizers", finalizers, left))


def status_writes(vm: Object, vmi: Object | None, now: datetime) -> list[Write]:
    if is_deleting(vm) and vmi is None and CONTROLLER_FINALIZER in vm["metadata"].get("finalizers", []):
        # Its instance has just gone, and the next pass lets it go.
        return []
    status = next_status(vm, vmi, now)
    if status == vm.get("status"):
        return []
    return [Replace(VMS, {**vm, "status": status}, "status")]


def next_status(vm: Object, vmi: Object | None, now: datetime) -> Object:
    old, meta = status_of(vm), vm["metadata"]
    conditions = next_conditions(old.get("conditions", []), vmi, now)
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    failure = start_failure(vm, vmi, now)
    observed = meta["generation"]
    if vmi is not None:
        observed = int(vmi["metadata"].get("annotations", {}).get(GENERATION, observed))
    snapshots = [
        {
            "name": volume["name"],
            "enabled": False,
            "reason": f"Snapshot is not supported for this volumeSource type [{volume['name']}]",
        }
        for volume in instance_spec(vm["spec"]["template"]).get("volumes", [])
    ]
    told = {
        "created": vmi is not None,
        "ready": ready,
        "printableStatus": printable_status(vm, vmi, failure),
        "runStrategy": run_strategy(vm),
        "startFailure": failure,
        "conditions": conditions,
        "desiredGeneration": meta["generation"],
        "observedGeneration": observed,
        "volumeSnapshotStatuses": snapshots,
    }
    # What is false or empty is left out, as Go's omitempty does.
    kept = {field: value for field, value in old.items() if field not in told}
    return kept | {field: value for field, value in told.items() if value}


def next_conditions(old: list[Object], vmi: Object | None, now: datetime) -> list[Object]:
    """The instance's own, always with a Ready among them."""
    if vmi is None:
        absent = make_condition("Ready", "False", "VMINotExists", "VMI does not exist", now)
        return with_condition([each for each in old if each["type"] == "Ready"], absent)
    mirrored: list[Object] = status_of(vmi).get("conditions", [])
    if condition(vmi, "Ready") is not None:
        return mirrored
    message = "VMI is missing the Ready condition"
    missing = make_condition("Ready", "False", "VMIConditionMissing", message, now)
    return [*with_condition([each for each in old if each["type"] == "Ready"], missing), *mirrored]


def printable_status(vm: Object, vmi: Object | None, failure: Object | None) -> str:
    if is_deleting(vm):
        return "Terminating"
    if vmi is None or is_final(vmi):
        return "CrashLoopBackOff" if failure else "Stopped"
    if is_deleting(vmi):
        return "Stopping"
    scheduled = condition(vmi, "PodScheduled")
    if scheduled and scheduled.get("reason") == "Unschedulable":
        return "ErrorUnschedulable"
    return "Running" if phase_of(vmi) == "Running" else "Starting"
