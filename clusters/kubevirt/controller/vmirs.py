"""VirtualMachineInstanceReplicaSet: as many instances as wanted, no more and no fewer.

The members that count are those that are neither finished nor on their way out. Their names are drawn under
the set's name, so nothing but a cache that has seen its own writes keeps a set from making too many; and who
goes is chosen by what does not change, so that a pass repeated before the cache has seen a member off chooses
the same one again. `membership` says who the members are.
"""

from copy import deepcopy
from datetime import datetime

from clusters.kubevirt.controller.events import Note
from clusters.kubevirt.controller.selectors import format_selector, selects
from clusters.kubevirt.controller.writes import Create, Delete, Replace, Write
from clusters.kubevirt.objects import (
    API_VERSIONS,
    condition,
    has_api_versions,
    instance_spec,
    is_deleting,
    is_final,
    make_condition,
    owner_reference,
    status_of,
    without_condition,
)
from virtflow.kube import Object
from virtflow.kube.resources import VMIRS, VMIS

__all__ = ["cleanup_writes", "is_valid", "metadata_writes", "scale_writes", "status_writes"]

COMPONENT = "virtualmachinereplicaset-controller"
BURST = 250
"""Instances made or ended in one pass; the next follows soon."""


def is_valid(vmirs: Object) -> bool:
    """Whether its members would be its own. Nothing at all is done for one that admission let through in error."""
    template = vmirs["spec"]["template"]
    return bool(template.get("metadata", {}).get("labels")) and selects(vmirs["spec"]["selector"], template)


def metadata_writes(vmirs: Object) -> list[Write]:
    if is_deleting(vmirs) or has_api_versions(vmirs):
        return []
    new = deepcopy(vmirs)
    new["metadata"].setdefault("annotations", {}).update(API_VERSIONS)
    return [Replace(VMIRS, new)]


def scale_writes(vmirs: Object, members: list[Object]) -> list[Write]:
    """Creates or deletes, independent of one another."""
    if is_at_rest(vmirs):
        return []
    active = active_of(members)
    surplus = len(active) - wanted(vmirs)
    # Whoever serves goes last, and among equals who has served longest.
    expendable = sorted(active, key=age, reverse=True)
    expendable.sort(key=is_ready)
    victims = expendable[: max(0, min(surplus, BURST))]
    missing = max(0, min(-surplus, BURST))
    return [*(delete(vmirs, vmi) for vmi in victims), *(create(vmirs) for _ in range(missing))]


def cleanup_writes(vmirs: Object, members: list[Object]) -> list[Write]:
    """Deletes of those that serve no more. KubeVirt does it after scaling, and only if that went well."""
    if is_at_rest(vmirs):
        return []
    finished = [vmi for vmi in members if (is_final(vmi) or loses_pod(vmi)) and not is_deleting(vmi)]
    return [delete_finished(vmirs, vmi) for vmi in finished[:BURST]]


def is_at_rest(vmirs: Object) -> bool:
    return is_deleting(vmirs) or is_paused(vmirs)


def is_paused(vmirs: Object) -> bool:
    return bool(vmirs["spec"].get("paused"))


def wanted(vmirs: Object) -> int:
    replicas: int = vmirs["spec"].get("replicas", 1)
    return replicas


def active_of(members: list[Object]) -> list[Object]:
    return [vmi for vmi in members if not is_final(vmi) and not is_deleting(vmi) and not loses_pod(vmi)]


def age(vmi: Object) -> tuple[str, str]:
    return vmi["metadata"]["creationTimestamp"], vmi["metadata"]["uid"]


def is_ready(vmi: Object) -> bool:
    ready = condition(vmi, "Ready")
    return ready is not None and ready["status"] == "True"


def loses_pod(vmi: Object) -> bool:
    ready = condition(vmi, "Ready")
    return ready is not None and (ready["status"], ready.get("reason")) == ("False", "PodTerminating")


def create(vmirs: Object) -> Create:
    meta, template = vmirs["metadata"], deepcopy(vmirs["spec"]["template"])
    of_template = template.get("metadata", {})
    instance: Object = {
        "metadata": {
            "generateName": of_template.get("name") or of_template.get("generateName") or meta["name"],
            "namespace": meta["namespace"],
            "labels": of_template.get("labels", {}),
            "annotations": of_template.get("annotations", {}),
            "ownerReferences": [owner_reference(vmirs)],
        },
        "spec": instance_spec(template),
    }
    started = "Started the virtual machine by creating the new virtual machine instance {name}"
    done = normal(vmirs, "SuccessfulCreate", started)
    return Create(
        VMIS, instance, done, warning(vmirs, "FailedCreate", "Error creating virtual machine instance: {error}")
    )


def delete(vmirs: Object, vmi: Object) -> Delete:
    name, uid = vmi["metadata"]["name"], vmi["metadata"]["uid"]
    stopped = f"Stopped the virtual machine by deleting the virtual machine instance {uid}"
    failed = f"Error deleting virtual machine instance {name}: {{error}}"
    return Delete(VMIS, vmi, normal(vmirs, "SuccessfulDelete", stopped), warning(vmirs, "FailedDelete", failed))


def delete_finished(vmirs: Object, vmi: Object) -> Delete:
    name, uid = vmi["metadata"]["name"], vmi["metadata"]["uid"]
    deleted = normal(vmirs, "SuccessfulDelete", f"Deleted finished virtual machine: {uid}")
    failed = warning(vmirs, "FailedDelete", f"Error deleting finished virtual machine {name}: {{error}}")
    return Delete(VMIS, vmi, deleted, failed)


def normal(vmirs: Object, reason: str, message: str) -> Note:
    return Note(vmirs, "Normal", reason, message, COMPONENT)


def warning(vmirs: Object, reason: str, message: str) -> Note:
    return Note(vmirs, "Warning", reason, message, COMPONENT)


def status_writes(vmirs: Object, members: list[Object], failure: str | None, moment: datetime) -> list[Write]:
    """`failure` is what the kube-apiserver refused this pass with."""
    active = active_of(members)
    told = {
        "replicas": len(active),
        "readyReplicas": sum(map(is_ready, active)),
        "labelSelector": format_selector(vmirs["spec"]["selector"]),
        "conditions": next_conditions(vmirs, len(active), failure, moment),
    }
    old = status_of(vmirs)
    kept = {field: value for field, value in old.items() if field not in told}
    status = kept | {field: value for field, value in told.items() if value}
    return [] if status == old else [Replace(VMIRS, {**vmirs, "status": status}, "status", of_pause(vmirs))]


def next_conditions(vmirs: Object, active: int, failure: str | None, moment: datetime) -> list[Object]:
    """There only while it holds. The first failure is the one told until nothing fails any more."""
    reason = "FailedCreate" if active < wanted(vmirs) else "FailedDelete"
    conditions: list[Object] = status_of(vmirs).get("conditions", [])
    paused = make_condition("ReplicaPaused", "True", "Paused", "Controller got paused", moment)
    failed = make_condition("ReplicaFailure", "True", reason, failure or "", moment)
    for new, holds in ((paused, is_paused(vmirs)), (failed, failure is not None)):
        if not holds:
            conditions = without_condition(conditions, new["type"])
        elif condition(vmirs, new["type"]) is None:
            conditions = [*conditions, new | {"lastProbeTime": None}]
    return conditions


def of_pause(vmirs: Object) -> Note | None:
    """What is told once the status says that the set has been paused, or resumed."""
    if is_paused(vmirs) == (condition(vmirs, "ReplicaPaused") is not None):
        return None
    if is_paused(vmirs):
        return normal(vmirs, "SuccessfulPaused", "Paused")
    return normal(vmirs, "SuccessfulResumed", "Resumed")
