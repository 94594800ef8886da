"""One write as the kube-apiserver saw it, and who it was: lines of an audit log, or changes that a watch showed.

An audit log knows everything: actors, refusals, one order. A watch shows only what became of an object.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatch
from typing import Any

from clusters.kubevirt.controller.workqueue import FAILED_TEST
from virtflow.kube import Object

__all__ = [
    "AGENT",
    "KINDS",
    "KWOK",
    "ROLES",
    "STATUS_FIELDS",
    "Record",
    "actor_of",
    "by_user_writes",
    "condition_told",
    "is_followed",
    "record_of_change",
    "record_of_event",
    "state_of",
    "written_state",
]

AGENT = "virtflow-conformance"
"""What whoever plays the situations is called in the audit log."""

KINDS = {
    "virtualmachines": "VirtualMachine",
    "virtualmachineinstances": "VirtualMachineInstance",
    "virtualmachineinstancereplicasets": "VirtualMachineInstanceReplicaSet",
    "pods": "Pod",
    "controllerrevisions": "ControllerRevision",
}
"""Of everything else that is written nothing is compared, except events."""

# By user and agent, the first that fits. The agent alone tells where one identity stands for many.
ACTORS = (
    ("*", f"{AGENT}*", "user"),
    ("*:kubevirt-controller", "*", "virt-controller"),
    ("*:kubevirt-handler", "*", "virt-handler"),
    ("*:kubevirt-apiserver", "*", "virt-api"),
    ("*:generic-garbage-collector", "*", "garbage-collector"),
    ("*", "kube-scheduler*", "scheduler"),
    ("system:kube-scheduler", "*", "scheduler"),
    ("system:node:*", "*", "node"),
    ("*", "kwok*", "node"),
    ("system:kwok-controller", "*", "node"),
)
ROLES = frozenset(actor for _, _, actor in ACTORS)
STATUS_FIELDS = {
    "VirtualMachine": ("printableStatus", "created", "ready"),
    "VirtualMachineInstance": ("phase",),
    "VirtualMachineInstanceReplicaSet": ("replicas", "readyReplicas"),
    "Pod": ("phase",),
}
# A kubelet's own conditions are the node's business, and the recordings' nodes were played by kwok.
POD_CONDITIONS = re.compile(r"PodScheduled|kubevirt\.io/.*")

KWOK = re.compile(r"kwok\.x-k8s\.io/")
"""How the annotations begin that are meant for kwok."""


@dataclass(frozen=True)
class Record:
    """One write that was accepted, or refused for good."""

    at: float
    """When it arrived, in seconds: no effect is sent before its cause has arrived."""
    actor: str
    """Empty if unknown."""
    verb: str
    kind: str
    name: str
    subresource: str = ""
    refused: int = 0
    version: int | None = None
    """The object's resourceVersion: the order of what was written to one object."""
    uid: str = ""
    state: Mapping[str, str] = field(default_factory=dict)
    """Of the answer, by aspect: phase, a condition's type, …"""
    finalizers: tuple[str, ...] | None = None
    patch: Any = None


def actor_of(user: str, agent: str) -> str:
    """A role, or the user and agent as they are: a stranger."""
    for user_pattern, agent_pattern, actor in ACTORS:
        if fnmatch(user, user_pattern) and fnmatch(agent, agent_pattern):
            return actor
    return f"{user} ({agent})"


def state_of(kind: str, status: Object) -> dict[str, str]:
    """What is followed of a status: plain fields, and conditions by type, as `condition_told`."""
    state = {name: _word(status[name]) for name in STATUS_FIELDS.get(kind, ()) if name in status}
    conditions = status.get("conditions") or ()
    return state | {each["type"]: condition_told(each) for each in conditions if is_followed(kind, each)}


def is_followed(kind: str, condition: Object) -> bool:
    return kind != "Pod" or POD_CONDITIONS.fullmatch(condition["type"]) is not None


def condition_told(condition: Object) -> str:
    """'False (GuestNotRunning): Guest VM is not reported as running'."""
    reason = f" ({condition['reason']})" if condition.get("reason") else ""
    message = f": {condition['message']}" if condition.get("message") else ""
    return f"{condition['status']}{reason}{message}"


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def record_of_event(line: bytes) -> Record | None:
    """A line of an audit log (audit.k8s.io/v1); None if it is of no interest.

    Raises ValueError for one without the bodies: the account cannot be made from it.
    """
    event = json.loads(line)
    ref = event.get("objectRef", {})
    kind = KINDS.get(ref.get("resource", ""))
    if event["stage"] != "ResponseComplete" or event["verb"] in ("get", "list", "watch") or kind is None:
        return None
    code, verb, request = event["responseStatus"]["code"], event["verb"], event.get("requestObject")
    patch = request if verb == "patch" else None
    if is_lost_race(event) or (isinstance(patch, dict) and is_for_kwok(patch)):
        return None
    if event["level"] != "RequestResponse":
        raise ValueError(
            f"The audit log has {kind}s at level {event['level']} only. Its policy must have level RequestResponse "
            "for kubevirt.io, pods with their status and binding, and apps' controllerrevisions."
        )
    answer = event.get("responseObject") or {}
    is_object = answer.get("kind") == kind
    meta = answer.get("metadata", {}) if is_object else {}
    agent, user = event.get("userAgent", ""), (event.get("impersonatedUser") or event["user"])["username"]
    actor = actor_of(user, agent.split("/")[0])
    drawn = re.search(r'"([^"]+)" is forbidden', answer.get("message", ""))
    return Record(
        at=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
        actor=actor,
        verb=verb,
        kind=kind,
        name=ref.get("name") or meta.get("name") or (drawn[1] if drawn else ""),
        subresource=ref.get("subresource", ""),
        refused=code if code >= 400 else 0,
        # What a delete ends at once has none any more.
        version=int(meta["resourceVersion"]) if "resourceVersion" in meta else None,
        uid=meta.get("uid", ""),
        state=written_state(kind, actor, answer.get("status", {}) if is_object else {}, patch),
        finalizers=tuple(meta.get("finalizers", ())) if meta else None,
        patch=patch,
    )


def is_lost_race(event: Object) -> bool:
    """Whether the write came too late. It is repeated, or has become needless.

    kwok now and then plays a stage twice, and the second time it is refused as invalid.
    """
    status = event["responseStatus"]
    failed_test = isinstance(event.get("requestObject"), list) and status.get("message") == FAILED_TEST
    played_twice = actor_of(event["user"]["username"], event.get("userAgent", "")) == "node"
    return status["code"] in (404, 409) or (status["code"] == 422 and (failed_test or played_twice))


def is_for_kwok(patch: Object) -> bool:
    """Whether it only tells kwok, which plays the node, how busy a pod is to look."""
    annotations = patch.get("metadata", {}).get("annotations", {})
    return patch == {"metadata": {"annotations": annotations}} and all(map(KWOK.match, annotations))


def written_state(kind: str, actor: str, status: Object, patch: Any) -> dict[str, str]:
    """What a write says of an object's state. Of a pod it is what the patch says: many have a hand in its status."""
    if kind != "Pod":
        return state_of(kind, status)
    state = state_of(kind, patch.get("status", {}) if isinstance(patch, dict) else {})
    return {name: value for name, value in state.items() if actor != "node" or name == "phase"}


def record_of_change(at: float, old: Object | None, new: Object) -> Record:
    """What a watch showed: an object before (None if it was not there) and after."""
    kind, meta = new["kind"], new["metadata"]
    return Record(
        at=at,
        actor="",
        verb="create" if old is None else "update",
        kind=kind,
        name=meta["name"],
        # Where there is one, only it changes the status.
        subresource="" if old is None or kind == "VirtualMachineInstance" else "status",
        version=int(meta["resourceVersion"]),
        uid=meta["uid"],
        # Who has a hand in a pod's status a watch does not tell.
        state={} if kind == "Pod" else state_of(kind, new.get("status", {})),
    )


def by_user_writes(records: Iterable[Record]) -> list[list[Record]]:
    """Split a namespace's records into situations: each begins with the one write that is the user's."""
    parts: list[list[Record]] = []
    for record in sorted(records, key=lambda record: record.at):
        if record.actor == "user":
            parts.append([])
        if parts:
            parts[-1].append(record)
    return parts
