"""The scale sequence, arrows 12 to 15, out of the audit log: each decision with its reason and its effect.

In one round the HPA controller writes /scale and then its own status, which says what it saw (12: current
replicas, utilization) and what it wanted. virt-controller's creates or deletes up to that number follow (15).
"""

import math
from collections.abc import Sequence
from typing import Any

from virtflow.sequence.audit import Write
from workflows.models import ReplicaSetRef, ScaleDecision

__all__ = ["TOLERANCE", "disagreement", "observe_scale_decisions"]

AUTOSCALER = "system:serviceaccount:kube-system:horizontal-pod-autoscaler"
VIRT_CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
TOLERANCE = 0.1
"""kube-controller-manager's --horizontal-pod-autoscaler-tolerance: within it the autoscaler does nothing."""

# The HPA's default scale-up policies: per 15 s, the larger of four pods and doubling.
PODS_A_PERIOD, PERCENT_A_PERIOD = 4, 100


def observe_scale_decisions(
    writes: Sequence[Write], target: ReplicaSetRef, spec: dict[str, Any]
) -> list[ScaleDecision]:
    """The autoscaler's decisions on one replica set, in order. `spec` is the HorizontalPodAutoscaler's."""
    scales = [
        (index, write)
        for index, write in enumerate(writes)
        if write.user == AUTOSCALER and write.subresource == "scale" and write.name == target.name
    ]
    limit = int(spec["maxReplicas"]), int(spec.get("minReplicas", 1))
    wanted = _target_of(spec)
    decisions = []
    for number, (index, write) in enumerate(scales):
        end = scales[number + 1][0] if number + 1 < len(scales) else len(writes)
        after = int(write.answer["spec"]["replicas"])
        reason = _status_after(writes[index + 1 : end], target, after)
        before, utilization = _seen(reason)
        decisions.append(
            ScaleDecision(
                at=write.at - scales[0][1].at,
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


def _target_of(spec: dict[str, Any]) -> int:
    return next(
        int(metric["resource"]["target"]["averageUtilization"])
        for metric in spec["metrics"]
        if metric["type"] == "Resource" and metric["resource"]["name"] == "cpu"
    )


def _status_after(writes: Sequence[Write], target: ReplicaSetRef, desired: int) -> dict[str, Any]:
    for write in writes:
        if write.user == AUTOSCALER and write.name == target.autoscaler:
            status: dict[str, Any] = write.answer.get("status", {})
            if status.get("desiredReplicas") == desired:
                return status
    return {}


def _seen(status: dict[str, Any]) -> tuple[int, int | None]:
    for metric in status.get("currentMetrics") or []:
        if metric.get("type") == "Resource" and metric["resource"]["name"] == "cpu":
            return int(status["currentReplicas"]), metric["resource"]["current"].get("averageUtilization")
    return int(status.get("currentReplicas", 0)), None


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
    owners = write.answer.get("metadata", {}).get("ownerReferences", [])
    return any(owner.get("controller") and owner["name"] == target.name for owner in owners)
