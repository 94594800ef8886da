"""Why a replica set is not what its autoscaler wants, in the words of all who say a part of it.

None says the whole. A quota on pods shows in the conditions of single instances, one on instances in the replica
set's; the autoscaler sees neither, and what the quota is at is said by the quota alone.
"""

import re
from collections.abc import Iterable, Sequence

from virtflow.kube import Object
from workflows.quota_models import Strain

__all__ = ["strain_of"]

EXCEEDED = re.compile(r"(exceeded|failed) quota:|status unknown for quota:")
"""What the kube-apiserver writes where a quota refuses."""
TELLING = ("Synchronized", "PodScheduled", "Ready")
"""An instance's conditions by how much they tell of why it does not run."""

Said = tuple[str, str]
"""A condition's reason and message."""


def strain_of(
    autoscaler: Object, replica_set: Object, instances: Iterable[Object], quotas: Iterable[Object]
) -> Strain:
    """Of a HorizontalPodAutoscaler, its replica set, and the instances and quotas of their namespace.

    An object that is not there is an empty one.
    """
    status = replica_set.get("status", {})
    waiting = list(_waiting(replica_set, instances))
    reasons = [*_of_autoscaler(autoscaler), *_of_replica_set(replica_set), *_of_instances(waiting)]
    is_quota = any(EXCEEDED.search(reason) for reason in reasons)
    if is_quota:
        reasons += [_figures(quota) for quota in quotas]
    return Strain(
        desired=autoscaler.get("status", {}).get("desiredReplicas", 0),
        current=status.get("replicas", 0),
        ready=status.get("readyReplicas", 0),
        refused=sum(bool(EXCEEDED.search(said)) for _, said in waiting),
        reasons=reasons,
        is_quota=is_quota,
    )


def _of_autoscaler(autoscaler: Object) -> Iterable[str]:
    for condition in _conditions(autoscaler):
        said = f"{condition.get('reason', '')}: {condition.get('message', '')}"
        match condition["type"], condition["status"]:
            case "ScalingActive", "False":
                yield f"the autoscaler has no figures (<unknown>), {said}"
            case ("AbleToScale", "False") | ("ScalingLimited", "True"):
                yield f"the autoscaler is bound, {said}"


def _of_replica_set(replica_set: Object) -> Iterable[str]:
    for condition in _conditions(replica_set):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            yield f"the replica set, {condition.get('reason', '')}: {condition.get('message', '')}"


def _of_instances(waiting: Iterable[Said]) -> Iterable[str]:
    """One speaks for all that wait for the same: a hundred say it, each of a pod of its own. Quotas come first."""
    alike: dict[tuple[bool, str], list[str]] = {}
    for reason, message in waiting:
        alike.setdefault((not EXCEEDED.search(message), reason), []).append(message)
    for (_, reason), messages in sorted(alike.items()):
        yield f"{len(messages)} of its instances, {reason}: {messages[0]}"


def _waiting(replica_set: Object, instances: Iterable[Object]) -> Iterable[Said]:
    uid = replica_set.get("metadata", {}).get("uid")
    for instance in instances:
        is_its_own = any(owner["uid"] == uid for owner in instance["metadata"].get("ownerReferences", []))
        if is_its_own and (said := _why_it_waits(instance)):
            yield said


def _why_it_waits(instance: Object) -> Said | None:
    conditions = {condition["type"]: condition for condition in _conditions(instance)}
    for kind in TELLING:
        condition = conditions.get(kind, {})
        if condition.get("status") == "False":
            return condition.get("reason", ""), condition.get("message", "")
    return None


def _figures(quota: Object) -> str:
    hard, used = (quota.get("status", {}).get(key, {}) for key in ("hard", "used"))
    figures = ", ".join(f"{resource} {used.get(resource, '?')} of {bound}" for resource, bound in hard.items())
    return f"quota {quota['metadata']['name']}: {figures}"


def _conditions(obj: Object) -> Sequence[Object]:
    return obj.get("status", {}).get("conditions") or []
