"""The scale sequence, arrows 12 to 15, out of the audit log: each decision with its reason and its effect.

In one round the HPA controller writes /scale and then its own status, which says what it saw (12: current
replicas, utilization) and what it wanted. virt-controller's creates or deletes up to that number follow (15).
"""

import math
from collections.abc import Sequence
from typing import Any

from virtflow.errors import VirtflowError
from virtflow.sequence.audit import NO_STATUS, Status, Write
from workflows.models import ReplicaSetRef, ScaleDecision

__all__ = [
    "ACTORS",
    "TOLERANCE",
    "VIRT_CONTROLLER",
    "current_utilization",
    "disagreement",
    "observe_scale_decisions",
    "target_utilization",
]

AUTOSCALER = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
VIRT_CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
ACTORS = frozenset({AUTOSCALER, VIRT_CONTROLLER})
"""Nobody else's writes prove anything."""
TOLERANCE = 0.1
"""kube-controller-manager's --horizontal-pod-autoscaler-tolerance: within it the autoscaler does nothing."""

Metrics = Sequence[dict[str, Any]] | None

# The HPA's default scale-up policies: per 15 s, the larger of four pods and doubling.
PODS_A_PERIOD, PERCENT_A_PERIOD = 4, 100


def observe_scale_decisions(
    writes: Sequence[Write], target: ReplicaSetRef, spec: dict[str, Any]
) -> list[ScaleDecision]:
    """The autoscaler's decisions on one replica set, in order. `spec` is the HorizontalPodAutoscaler's.

    Raises VirtflowError if that has no metric of CPU utilization.
    """
    scales = [
        (index, write)
        for index, write in enumerate(writes)
        if write.user == AUTOSCALER and write.subresource == "scale" and write.name == target.name
    ]
    limit = int(spec["maxReplicas"]), int(spec.get("minReplicas", 1))
    wanted = target_utilization(spec)
    decisions = []
    for number, (index, write) in enumerate(scales):
        end = scales[number + 1][0] if number + 1 < len(scales) else len(writes)
        after = write.replicas or 0
        reason = _status_after(writes[index + 1 : end], target, after)
        before, utilization = reason.currentReplicas, current_utilization(reason.currentMetrics)
        decisions.append(
            ScaleDecision(
                at=write.at,
                before=before,
                after=after,
                utilization=utilization,
                target=wanted,
                followed=_changes(writes[index + 1 : end], target, grow=after > before) >= abs(after - before),
                disagreement=disagreement(before, after, utilization, wanted, limit),
            )
        )
    return decisions


def disagreement(before: int, after: int, utilization: int | None, target: int, limit: tuple[int, int]) -> str:
    """Why a decision is not one the HPA's algorithm could have made, or nothing.

    The reported utilization is cut to a whole percent and covers the pods that had figures; pods without count
    as idle when scaling out, so the algorithm may want less than the plain formula, never more. When scaling
    in, stabilization may keep it at an older, higher wish, never a lower one.
    """
    maximum, minimum = limit
    if not minimum <= after <= maximum:
        return f"{after} is outside {minimum} to {maximum}"
    if utilization is None:
        return "it reported no utilization"
    if after > before:
        policy = max(before + PODS_A_PERIOD, before + math.ceil(before * PERCENT_A_PERIOD / 100))
        most = min(policy, math.ceil(before * (utilization + 1) / target))
        if utilization + 1 <= target * (1 + TOLERANCE):
            return f"it scaled out at {utilization} %, within the tolerance of {target} %"
        return f"{after} is more than the {most} that {utilization} % and the policy allow" if after > most else ""
    if utilization >= target * (1 - TOLERANCE):
        return f"it scaled in at {utilization} %, not below the tolerance of {target} %"
    least = max(minimum, math.ceil(before * utilization / target))
    return f"{after} is less than the {least} that {utilization} % needs" if after < least else ""


def current_utilization(metrics: Metrics) -> int | None:
    """Percent of the CPU request over all replicas, out of an autoscaler's status.currentMetrics.

    None while the autoscaler has no figures (`<unknown>`).
    """
    cpu = _cpu(metrics)
    value = cpu["current"].get("averageUtilization") if cpu else None
    return None if value is None else int(value)


def target_utilization(spec: dict[str, Any]) -> int:
    """Percent of the CPU request that a HorizontalPodAutoscaler is to keep. Raises VirtflowError if it has none."""
    cpu = _cpu(spec.get("metrics"))
    if cpu is None:
        raise VirtflowError(
            f"The HorizontalPodAutoscaler of {spec['scaleTargetRef']['name']} has no metric of CPU utilization, the "
            f"one that load drives here. Give it one: type Resource, resource cpu, target averageUtilization."
        )
    return int(cpu["target"]["averageUtilization"])


def _cpu(metrics: Metrics) -> dict[str, Any] | None:
    return next(
        (
            metric["resource"]
            for metric in metrics or ()
            if metric.get("type") == "Resource" and metric["resource"]["name"] == "cpu"
        ),
        None,
    )


def _status_after(writes: Sequence[Write], target: ReplicaSetRef, desired: int) -> Status:
    reports = (write.status for write in writes if write.user == AUTOSCALER and write.name == target.autoscaler)
    return next((status for status in reports if status.desiredReplicas == desired), NO_STATUS)


def _changes(writes: Sequence[Write], target: ReplicaSetRef, *, grow: bool) -> int:
    """Instances of the replica set that virt-controller created or deleted; each counts once."""
    verb = "create" if grow else "delete"
    return len(
        {
            write.name
            for write in writes
            if write.user == VIRT_CONTROLLER
            and write.verb == verb
            and write.resource == "virtualmachineinstances"
            and _is_member(write, target)
        }
    )


def _is_member(write: Write, target: ReplicaSetRef) -> bool:
    return write.owner is not None and write.owner.name == target.name
