"""A node whose virt-handler has fallen silent: it gets no new instances, and those without a living pod have failed.

An instance whose pod still lives there may well run: only the pod's end, which the control plane decides on, makes
it safe to start another one elsewhere.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from clusters.kubevirt.controller.events import Note
from clusters.kubevirt.controller.heartbeat import HEARTBEAT, SCHEDULABLE, TIMEOUT, silence
from clusters.kubevirt.controller.vmi import HANDLER_PHASES, is_down
from clusters.kubevirt.controller.writes import Patch, Write
from clusters.kubevirt.objects import controller_of, phase_of, status_of
from virtflow.kube import Object
from virtflow.kube.resources import NODES, VMIS

__all__ = ["is_responsive", "node_of", "plan", "time_left"]

COMPONENT, REASON = "node-controller", "NodeUnresponsive"


def node_of(vmi: Object) -> str | None:
    """The node that has an instance, from Scheduled to its end."""
    return status_of(vmi).get("nodeName") if phase_of(vmi) in HANDLER_PHASES else None


def is_responsive(node: Object | None, now: datetime) -> bool:
    if node is None:
        return False
    silent = silence(node, now)
    return silent is None or silent <= TIMEOUT


def time_left(node: Object, now: datetime) -> timedelta | None:
    """When to look at a responsive node again, if nothing is heard of it till then."""
    silent = silence(node, now)
    return None if silent is None else TIMEOUT - max(silent, timedelta(0)) + timedelta(seconds=1)


def plan(node: Object | None, vmis: Iterable[Object], pods: Iterable[Object]) -> list[Write]:
    """What follows from a node's silence, or its absence, for the instances it has. The pods are theirs."""
    writes: list[Write] = []
    if node is not None and node["metadata"].get("labels", {}).get(SCHEDULABLE) == "true":
        writes.append(mark(node))
    alive = {(controller_of(pod) or {}).get("uid") for pod in pods if not is_down(pod)}
    return [*writes, *(fail(vmi) for vmi in vmis if vmi["metadata"]["uid"] not in alive)]


def mark(node: Object) -> Patch:
    """On condition that it is still as silent: else the label might come after a beat, and stay until the next."""
    heartbeat = node["metadata"]["annotations"][HEARTBEAT]
    patch = [
        {"op": "test", "path": f"/metadata/annotations/{escape(HEARTBEAT)}", "value": heartbeat},
        {"op": "replace", "path": f"/metadata/labels/{escape(SCHEDULABLE)}", "value": "false"},
    ]
    return Patch(NODES, node, patch, done=told(node, "virt-handler is not responsive, marking node as unresponsive"))


def fail(vmi: Object) -> Patch:
    node = vmi["status"]["nodeName"]
    patch = [
        {"op": "test", "path": "/metadata/uid", "value": vmi["metadata"]["uid"]},
        {"op": "test", "path": "/status/phase", "value": vmi["status"]["phase"]},
        {"op": "replace", "path": "/status/phase", "value": "Failed"},
        {"op": "add", "path": "/status/reason", "value": REASON},
    ]
    message = f"virt-handler on node {node} is not responsive, marking VMI as failed"
    return Patch(VMIS, vmi, patch, done=told(vmi, message))


def told(about: Object, message: str) -> Note:
    return Note(about, "Normal", REASON, message, COMPONENT)


def escape(key: str) -> str:
    """A key as a step of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")
