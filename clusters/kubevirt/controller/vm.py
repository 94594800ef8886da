"""VirtualMachine: whether its instance should be there, and what is said of it.

Each function looks at the VM and its instance as they are, never at what changed, so a lost event or a
restart costs nothing.
"""

from copy import deepcopy
from datetime import datetime

from clusters.kubevirt.controller.events import Note
from clusters.kubevirt.controller.membership import change_owners, owners_of
from clusters.kubevirt.controller.printable_status import printable_status
from clusters.kubevirt.controller.restart_required import placement_writes, restart_required
from clusters.kubevirt.controller.run_strategy import (
    asks_for_start,
    next_run_strategy,
    open_requests,
    orphans,
    should_rerun,
    should_start,
    should_stop,
    start_failure,
    starts_paused,
)
from clusters.kubevirt.controller.writes import Create, Delete, Patch, Replace, Write
from clusters.kubevirt.objects import (
    API_VERSIONS,
    CONTROLLER_FINALIZER,
    condition,
    controller_of,
    has_api_versions,
    has_condition,
    instance_spec,
    is_deleting,
    is_final,
    json_patch,
    make_condition,
    owner_reference,
    run_strategy,
    status_of,
    with_condition,
)
from virtflow.kube import Object, Resource
from virtflow.kube.resources import CONTROLLER_REVISIONS, VMIS, VMS

__all__ = ["adoption_writes", "failed_sync", "metadata_writes", "owns", "spec_writes", "status_writes"]

GENERATION = "kubevirt.io/vm-generation"
FAILED_DELETE = ("FailedDelete", "Failure attempting to delete VMI")


def owns(vm: Object, vmi: Object) -> bool:
    owner = controller_of(vmi)
    return owner is not None and bool(owner["uid"] == vm["metadata"]["uid"])


def adoption_writes(vm: Object, vmi: Object | None) -> list[Write]:
    """What makes the instance of the VM's name, if it is nobody's, the VM's. Before it the VM must be seen afresh."""
    if vmi is None or controller_of(vmi) or is_deleting(vm) or is_deleting(vmi):
        return []
    return [change_owners(vmi, [*owners_of(vmi), owner_reference(vm)])]


def metadata_writes(vm: Object, vmi: Object | None) -> list[Write]:
    """At most one, of the VM itself: nothing else is to be done before it is in place."""
    finalizers = vm["metadata"].get("finalizers", [])
    if is_deleting(vm):
        if (vmi is None or orphans(vm)) and CONTROLLER_FINALIZER in finalizers:
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
    """What starts or stops the instance, and what keeps it up to the VM.

    `vmi` is the VM's own, `revisions` are those the VM has kept and the one the instance was started from.
    """
    if vmi is None:
        if run_strategy(vm) == "Halted" and asks_for_start(vm) and not is_deleting(vm):
            return [switch_on(vm)]
        return start(vm, revisions) if should_start(vm, now) else []
    if is_deleting(vmi):
        finalizers = vmi["metadata"].get("finalizers", [])
        # Until here the finalizer has kept the instance from vanishing before its end was seen and counted.
        counted = start_failure(vm, vmi, now) == status_of(vm).get("startFailure")
        if is_final(vmi) and counted and CONTROLLER_FINALIZER in finalizers:
            return [without_finalizer(VMIS, vmi)]
        return []
    started_from = revision_of(vmi, revisions)
    writes = follow_generation(vm, vmi, started_from)
    if should_stop(vm, vmi):
        if should_rerun(vm, vmi):
            writes.append(ask_for_start(vm))
        message = f"Stopped the virtual machine by deleting the virtual machine instance {vmi['metadata']['uid']}"
        return [*writes, Delete(VMIS, vmi, Note(vm, "Normal", "SuccessfulDelete", message))]
    return [*writes, *placement_writes(vm, vmi, started_from, now)]


def switch_on(vm: Object) -> Replace:
    """Give a halted VM whose start is asked for a strategy under which it can be."""
    field, value = ("runStrategy", "Always") if "runStrategy" in vm["spec"] else ("running", True)
    return Replace(VMS, {**vm, "spec": {**vm["spec"], field: value}})


def ask_for_start(vm: Object) -> Patch:
    asked = status_of(vm).get("stateChangeRequests")
    patch = json_patch("/status/stateChangeRequests", asked, [*(asked or []), {"action": "Start"}])
    return Patch(VMS, vm, patch, subresource="status")


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
        "spec": instance_spec(template) | ({"startStrategy": "Paused"} if starts_paused(vm) else {}),
        "status": {"virtualMachineRevisionName": revision},
    }


def revision_of(vmi: Object, revisions: list[Object]) -> Object | None:
    """The revision that the instance was started from, if it is still there."""
    name = status_of(vmi).get("virtualMachineRevisionName")
    return next((each for each in revisions if each["metadata"]["name"] == name), None)


def follow_generation(vm: Object, vmi: Object, started_from: Object | None) -> list[Write]:
    """Bring the instance's generation up to the VM's, unless the instance runs from another template."""
    annotations = vmi["metadata"].get("annotations", {})
    generation = str(vm["metadata"]["generation"])
    if is_deleting(vm) or started_from is None or annotations.get(GENERATION) == generation:
        return []
    if vm["spec"]["template"] != started_from["data"]["spec"]["template"]:
        return []
    patch = json_patch("/metadata/annotations", annotations, {**annotations, GENERATION: generation})
    return [Patch(VMIS, vmi, patch)]


def without_finalizer(resource: Resource, obj: Object) -> Patch:
    finalizers = obj["metadata"]["finalizers"]
    left = [each for each in finalizers if each != CONTROLLER_FINALIZER]
    return Patch(resource, obj, json_patch("/metadata/finalizers", finalizers, left))


def status_writes(
    vm: Object, vmi: Object | None, revisions: list[Object], now: datetime, failure: Object | None = None
) -> list[Write]:
    """What tells of the VM; `failure` is the condition of a start or a stop that was refused in this pass."""
    if is_deleting(vm) and vmi is None and CONTROLLER_FINALIZER in vm["metadata"].get("finalizers", []):
        # Its instance has just gone, and the next pass lets it go.
        return []
    status = next_status(vm, vmi, revisions, now, failure)
    if status == vm.get("status"):
        return []
    return [Replace(VMS, {**vm, "status": status}, "status")]


def failed_sync(vmi: Object | None, error: str, now: datetime) -> Object:
    """The condition of a VM whose instance could not be started, or, if there is one, not be stopped."""
    reason, what = ("FailedCreate", "Failure while starting VMI") if vmi is None else FAILED_DELETE
    return {**make_condition("Failure", "True", reason, f"{what}: {error}", now), "lastProbeTime": None}


def next_status(
    vm: Object, vmi: Object | None, revisions: list[Object], now: datetime, failure: Object | None
) -> Object:
    old, meta = status_of(vm), vm["metadata"]
    started_from = None if vmi is None else revision_of(vmi, revisions)
    own = [each for each in (failure, restart_required(vm, started_from, now)) if each is not None]
    start_failed = start_failure(vm, vmi, now)
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
        "ready": vmi is not None and has_condition(vmi, "Ready", "True"),
        "printableStatus": printable_status(vm, vmi, start_failed),
        "runStrategy": next_run_strategy(vm, vmi),
        "stateChangeRequests": open_requests(vm, vmi),
        "startFailure": start_failed,
        "conditions": next_conditions(old.get("conditions", []), vmi, own, now),
        "desiredGeneration": meta["generation"],
        "observedGeneration": observed,
        "volumeSnapshotStatuses": snapshots,
    }
    # What is false or empty is left out, as Go's omitempty does.
    kept = {field: value for field, value in old.items() if field not in told}
    return kept | {field: value for field, value in told.items() if value}


def next_conditions(old: list[Object], vmi: Object | None, own: list[Object], now: datetime) -> list[Object]:
    """The instance's, always with a Ready among them, and the VM's own."""
    mirrored: list[Object] = [] if vmi is None else status_of(vmi).get("conditions", [])
    if vmi is None:
        ready = [make_condition("Ready", "False", "VMINotExists", "VMI does not exist", now)]
    elif condition(vmi, "Ready") is None:
        message = "VMI is missing the Ready condition"
        ready = [make_condition("Ready", "False", "VMIConditionMissing", message, now)]
    else:
        ready = []
    return [*since(old, ready), *mirrored, *since(old, own)]


def since(old: list[Object], conditions: list[Object]) -> list[Object]:
    """The conditions with the times they have had since they first said what they say."""
    kinds = [each["type"] for each in conditions]
    known = [each for each in old if each["type"] in kinds]
    for each in conditions:
        known = with_condition(known, each)
    return known
