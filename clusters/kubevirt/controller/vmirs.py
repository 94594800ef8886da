"""VirtualMachineInstanceReplicaSet: as many instances as wanted, no more and no fewer.

The members that count are those that are neither finished nor on their way out. Their names are the
kube-apiserver's, drawn under the set's name, so nothing but a cache that has seen its own writes keeps a set
from making too many; and what a lost answer may still have made too many of goes at the next pass.
"""

from copy import deepcopy

from clusters.kubevirt.controller.events import Note
from clusters.kubevirt.controller.objects import (
    API_VERSIONS,
    condition,
    has_api_versions,
    instance_spec,
    is_deleting,
    is_final,
    owner_reference,
    status_of,
)
from clusters.kubevirt.controller.writes import Create, Delete, Replace, Write
from virtflow.kube import Object
from virtflow.kube.resources import VMIRS, VMIS

__all__ = ["format_selector", "metadata_writes", "spec_writes", "status_writes"]

BURST = 250
"""Instances made or ended in one pass; the next follows at once."""


def metadata_writes(vmirs: Object) -> list[Write]:
    if is_deleting(vmirs) or has_api_versions(vmirs):
        return []
    new = deepcopy(vmirs)
    new["metadata"].setdefault("annotations", {}).update(API_VERSIONS)
    return [Replace(VMIRS, new)]


def spec_writes(vmirs: Object, members: list[Object]) -> list[Write]:
    """Creates and deletes, independent of one another. `members` are the instances the set owns."""
    if is_deleting(vmirs) or vmirs["spec"].get("paused"):
        return []
    finished = [vmi for vmi in members if is_final(vmi) and not is_deleting(vmi)]
    active = active_of(members)
    surplus = len(active) - vmirs["spec"].get("replicas", 1)
    # Whoever serves goes last, and among equals who has served longest.
    expendable = sorted(active, key=lambda vmi: vmi["metadata"]["creationTimestamp"], reverse=True)
    expendable.sort(key=is_ready)
    victims = expendable[: max(0, min(surplus, BURST))]
    missing = max(0, min(-surplus, BURST))
    return [*(delete(vmirs, vmi) for vmi in [*finished, *victims]), *(create(vmirs) for _ in range(missing))]


def active_of(members: list[Object]) -> list[Object]:
    return [vmi for vmi in members if not is_final(vmi) and not is_deleting(vmi)]


def is_ready(vmi: Object) -> bool:
    ready = condition(vmi, "Ready")
    return ready is not None and ready["status"] == "True"


def create(vmirs: Object) -> Create:
    meta, template = vmirs["metadata"], deepcopy(vmirs["spec"]["template"])
    of_template = template.get("metadata", {})
    instance: Object = {
        "metadata": {
            "generateName": meta["name"],
            "namespace": meta["namespace"],
            "labels": of_template.get("labels", {}),
            "annotations": of_template.get("annotations", {}),
            "ownerReferences": [owner_reference(vmirs)],
        },
        "spec": instance_spec(template),
    }
    started = "Started the virtual machine by creating the new virtual machine instance {name}"
    done = Note(vmirs, "Normal", "SuccessfulCreate", started)
    refused = Note(vmirs, "Warning", "FailedCreate", "Error creating virtual machine instance: {error}")
    return Create(VMIS, instance, done, refused)


def delete(vmirs: Object, vmi: Object) -> Delete:
    message = f"Stopped the virtual machine by deleting the virtual machine instance {vmi['metadata']['uid']}"
    return Delete(VMIS, vmi, Note(vmirs, "Normal", "SuccessfulDelete", message))


def status_writes(vmirs: Object, members: list[Object]) -> list[Write]:
    if is_deleting(vmirs):
        return []
    active = active_of(members)
    told = {
        "replicas": len(active),
        "readyReplicas": sum(map(is_ready, active)),
        "labelSelector": format_selector(vmirs["spec"]["selector"]),
    }
    old = status_of(vmirs)
    kept = {field: value for field, value in old.items() if field not in told}
    status = kept | {field: value for field, value in told.items() if value}
    return [] if status == old else [Replace(VMIRS, {**vmirs, "status": status}, "status")]


def format_selector(selector: Object) -> str:
    """A label selector in the form that list requests and the scale subresource speak."""
    parts = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    for each in selector.get("matchExpressions", []):
        key, values = each["key"], ",".join(sorted(each.get("values", [])))
        match each["operator"]:
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
    return ",".join(sorted(parts))
