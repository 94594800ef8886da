"""Why an autoscaler shows `<unknown>`, which its own condition tells only half of.

kube-controller-manager asks for the figures first and looks at the pods afterwards. So where the selector matches no
pod, where the pods are new and where metrics-server is dead, it says the same: no metrics returned. Each has another
remedy, so this looks at the pods first: whether there are any, whether each container has the request that a
percentage is of, and then who lacks figures.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from virtflow.kube import Object
from virtflow.sequence.scale import current_utilization

__all__ = ["has_no_figures", "why_no_figures"]

FIRST_FIGURES = timedelta(seconds=90)
"""A pod's first figures need two scrapes of its node, up to 30 s apart, and the autoscaler's next round."""
NAMED = 3
"""Of many pods."""


def has_no_figures(autoscaler: Object) -> bool:
    """Whether it shows `<unknown>`, or stands on figures that it does not get any more."""
    return bool(autoscaler) and (
        current_utilization(autoscaler.get("status", {}).get("currentMetrics")) is None or bool(_said_by(autoscaler))
    )


def why_no_figures(
    autoscaler: Object,
    selector: str,
    selected: Sequence[Object],
    pods: Sequence[Object],
    figures: Sequence[Object] | str,
    now: datetime | None = None,
) -> str:
    """The first thing that is in the way.

    `selector` is the one in the replica set's status, which the autoscaler uses; `selected` are the pods it matches,
    `pods` all of the namespace; `figures` are their PodMetrics, or what was said instead.
    """
    said = _said_by(autoscaler)
    if words := _of_target(said, selector):
        return words
    if not selected:
        return f"the selector {selector} matches no pod{_others(pods)}"
    if without := [name for pod in selected for name in _without_request(pod)]:
        return (
            f"a share of the CPU request cannot be told where there is no request: {_some(without)}. "
            f"Give the template spec.domain.resources.requests.cpu"
        )
    if isinstance(figures, str):
        return f"metrics-server gives no figures: {figures}. `virtflow logs metrics-server` may say why"
    known = {each["metadata"]["name"] for each in figures}
    if missing := [pod for pod in selected if pod["metadata"]["name"] not in known]:
        return _of_missing(missing, len(selected), now or datetime.now(UTC))
    own = "; ".join(f"{reason}: {message}" for reason, message in said.items())
    return f"the figures are there by now, and it has not taken them up yet. It says {own or 'nothing'}"


def _of_target(said: dict[str, str], selector: str) -> str:
    """What keeps it from looking at pods at all; empty if nothing does."""
    if "FailedGetScale" in said:
        return f"it does not find what it is to scale: {said['FailedGetScale']}"
    if "ScalingDisabled" in said:
        return "it is switched off, because its replica set is at 0 replicas"
    if not selector:
        return "the replica set has no selector in its status (labelSelector), by which pods are found"
    return ""


def _said_by(autoscaler: Object) -> dict[str, str]:
    """Messages of the conditions that say that it sees nothing, by reason."""
    conditions = autoscaler.get("status", {}).get("conditions") or []
    return {
        condition.get("reason", ""): condition.get("message", "")
        for condition in conditions
        if condition["status"] == "False"
        and (condition["type"] == "ScalingActive" or condition.get("reason") == "FailedGetScale")
    }


def _others(pods: Sequence[Object]) -> str:
    if not pods:
        return ", and there is none in the namespace"
    labels = pods[0]["metadata"].get("labels", {})
    told = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return f"; {len(pods)} are in the namespace, {pods[0]['metadata']['name']} with the labels {told or '(none)'}"


def _without_request(pod: Object) -> list[str]:
    """Names of its containers without a CPU request, of those that run as long as it does."""
    spec = pod["spec"]
    if "cpu" in spec.get("resources", {}).get("requests", {}):
        return []
    sidecars = [each for each in spec.get("initContainers", []) if each.get("restartPolicy") == "Always"]
    return [
        f"container {each['name']} of pod {pod['metadata']['name']}"
        for each in [*spec["containers"], *sidecars]
        if "cpu" not in each.get("resources", {}).get("requests", {})
    ]


def _of_missing(missing: Sequence[Object], number: int, now: datetime) -> str:
    if waiting := [f"{pod['metadata']['name']} is {_phase(pod)}" for pod in missing if _phase(pod) != "Running"]:
        return f"{len(waiting)} of {number} pods do not run, and have no figures therefore: {_some(waiting)}"
    ages = [now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) for pod in missing]
    who = f"{len(missing)} of {number} pods ({_some([pod['metadata']['name'] for pod in missing])})"
    oldest, first = max(ages).total_seconds(), FIRST_FIGURES.total_seconds()
    if oldest <= first:
        return f"{who} are too new for figures: {oldest:.0f} s old at most, and the first take up to {first:.0f} s"
    return (
        f"metrics-server answers, and has no figures of {who}, which are up to {oldest:.0f} s old. "
        f"`virtflow logs metrics-server` says whether it reaches their nodes"
    )


def _phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
