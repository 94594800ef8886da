"""What the roles share: the names KubeVirt gives to things, owners, conditions and times.

Everything here is a pure function of decoded JSON, so that a reconciler can be tested without a cluster. The
time is always handed in. It is written in whole seconds: that is all the API keeps of its own times, and a
JSON patch that tests a list of conditions fails for ever when its times were read with less than was written.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from virtflow.kube import Object

__all__ = [
    "API_VERSIONS",
    "CONTROLLER_FINALIZER",
    "DRAWN",
    "FINAL_PHASES",
    "FOREGROUND_FINALIZER",
    "LAUNCHERS",
    "NODE_LABEL",
    "condition",
    "controller_of",
    "drawn_name",
    "format_time",
    "has_api_versions",
    "has_condition",
    "instance_spec",
    "is_deleting",
    "is_final",
    "json_patch",
    "key_of",
    "make_condition",
    "now",
    "owner_reference",
    "parse_time",
    "phase_of",
    "run_strategy",
    "set_phase",
    "status_of",
    "with_condition",
    "without_condition",
]

CONTROLLER_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
FOREGROUND_FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"
NODE_LABEL = "kubevirt.io/nodeName"
LAUNCHERS = "kubevirt.io=virt-launcher"
"""Label selector of launcher pods."""

API_VERSIONS = {
    "kubevirt.io/latest-observed-api-version": "v1",
    "kubevirt.io/storage-observed-api-version": "v1",
}
FINAL_PHASES = ("Succeeded", "Failed")

LETTERS, DRAWN, LONGEST_BASE = "bcdfghjklmnpqrstvwxz2456789", 5, 58
"""What the kube-apiserver makes a name of, beside `generateName`."""


def now() -> datetime:
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def key_of(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def drawn_name(base: str, draw: bytes) -> str:
    """A name as `generateName` would make it, with a letter for each of the first `DRAWN` bytes."""
    return base[:LONGEST_BASE] + "".join(LETTERS[byte % len(LETTERS)] for byte in draw[:DRAWN])


def is_deleting(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def status_of(obj: Object) -> Object:
    """An object's status; a new one has none yet."""
    status: Object = obj.get("status", {})
    return status


def instance_spec(template: Object) -> Object:
    """The instance's spec in a template, which may leave it out: then it is an empty one."""
    found: Object = template.get("spec") or {"domain": {"devices": {}}}
    return found


def run_strategy(vm: Object) -> str:
    """The strategy, or what the deprecated `running` stands for."""
    spec = vm["spec"]
    strategy: str = spec.get("runStrategy") or ("Always" if spec.get("running") else "Halted")
    return strategy


def phase_of(vmi: Object) -> str:
    phase: str = status_of(vmi).get("phase") or "Pending"
    return phase


def is_final(vmi: Object) -> bool:
    return phase_of(vmi) in FINAL_PHASES


def set_phase(status: Object, phase: str, moment: datetime) -> None:
    """Change a VMI's phase in its status, and note when that was."""
    status["phase"] = phase
    transition = {"phase": phase, "phaseTransitionTimestamp": format_time(moment)}
    status["phaseTransitionTimestamps"] = [*status.get("phaseTransitionTimestamps", []), transition]


def has_api_versions(obj: Object) -> bool:
    annotations: Object = obj["metadata"].get("annotations", {})
    return API_VERSIONS.items() <= annotations.items()


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the one owner that manages the object."""
    owners: Iterable[Object] = obj["metadata"].get("ownerReferences", [])
    return next((owner for owner in owners if owner.get("controller")), None)


def owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def condition(obj: Object, kind: str) -> Object | None:
    found: Iterable[Object] = status_of(obj).get("conditions", [])
    return next((each for each in found if each["type"] == kind), None)


def has_condition(obj: Object, kind: str, status: str, reason: str | None = None) -> bool:
    found = condition(obj, kind)
    return found is not None and found["status"] == status and reason in (None, found.get("reason"))


def make_condition(kind: str, status: str, reason: str, message: str, moment: datetime) -> Object:
    time = format_time(moment)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": time,
        "lastTransitionTime": time,
    }


def with_condition(conditions: list[Object], new: Object) -> list[Object]:
    """The conditions with this one in its type's place; one that says the same already stays, with its times."""
    for index, old in enumerate(conditions):
        if old["type"] == new["type"]:
            same = (old["status"], old.get("reason")) == (new["status"], new.get("reason"))
            return [*conditions[:index], old if same else new, *conditions[index + 1 :]]
    return [*conditions, new]


def without_condition(conditions: list[Object], kind: str) -> list[Object]:
    return [each for each in conditions if each["type"] != kind]


def json_patch(path: str, old: object, new: object) -> list[Object]:
    """Change one value, provided nobody else has changed it meanwhile; None where there was, or is to be, nothing."""
    change: Object = {"op": "remove", "path": path} if new is None else {"op": "replace", "path": path, "value": new}
    return [{"op": "test", "path": path, "value": old}, change]
