"""The sign of life of each node's virt-handler: a time in an annotation of the node, and a label beside it.

Who schedules virtual machines goes by the label, and virt-controller by the time: a node that has been silent for
too long gets no more of them, and those it had are given up. Both sides' periods are here, as they only make sense
together.
"""

from datetime import datetime, timedelta

from clusters.kubevirt.objects import condition, format_time, parse_time
from virtflow.kube import Object

__all__ = ["HEARTBEAT", "INTERVAL", "SCHEDULABLE", "TIMEOUT", "beat", "is_due", "is_ready", "silence"]

HEARTBEAT = "kubevirt.io/heartbeat"
SCHEDULABLE = "kubevirt.io/schedulable"

INTERVAL = timedelta(minutes=1)
"""Between two signs of life of a node: each is a write."""

TIMEOUT = timedelta(minutes=5)
"""How long a node may be silent before it counts as unresponsive."""


def beat(moment: datetime) -> Object:
    """The patch of a node that says: its virt-handler is there."""
    return {
        "metadata": {
            "labels": {SCHEDULABLE: "true"},
            "annotations": {HEARTBEAT: format_time(moment)},
        }
    }


def silence(node: Object, now: datetime) -> timedelta | None:
    """How long ago the last sign of life was; None if there never was one. Negative if it is in the future."""
    last = node["metadata"].get("annotations", {}).get(HEARTBEAT)
    try:
        return None if last is None else now - parse_time(last)
    except ValueError:
        return None


def is_due(node: Object, now: datetime) -> bool:
    """Whether the node is to give a sign of life. One in the future is none: the clock has been set back since."""
    silent = silence(node, now)
    return silent is None or not timedelta(0) <= silent < INTERVAL


def is_ready(node: Object | None) -> bool:
    """Whether a node is there and its kubelet well."""
    ready = condition(node, "Ready") if node is not None else None
    return ready is not None and ready["status"] == "True"
