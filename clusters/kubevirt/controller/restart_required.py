"""A template that changed while its instance runs: what reaches the instance, and what needs a restart first.

KubeVirt moves an instance to a new launcher pod to give it more CPUs or memory; without migration here, these
need a restart like the rest. Where an instance may run is no property of the one that runs: that is passed on.
"""

from datetime import datetime

from clusters.kubevirt.controller.writes import Patch
from clusters.kubevirt.objects import format_time, is_deleting, json_patch
from virtflow.kube import Object
from virtflow.kube.resources import VMIS

__all__ = ["placement_writes", "restart_required"]

PLACEMENT = ("affinity", "nodeSelector", "tolerations")
MESSAGE = "a non-live-updatable field was changed in the template spec"


def restart_required(vm: Object, started_from: Object | None, now: datetime) -> Object | None:
    """The VM's condition RestartRequired, if its template is no more what the instance was started from."""
    if started_from is None or lasting(template_spec(vm)) == lasting(template_spec(started_from["data"])):
        return None
    return {
        "type": "RestartRequired",
        "status": "True",
        "message": MESSAGE,
        "lastProbeTime": None,
        "lastTransitionTime": format_time(now),
    }


def placement_writes(vm: Object, vmi: Object, started_from: Object | None, now: datetime) -> list[Patch]:
    """What passes the template's placement on to the instance, unless a restart will do it."""
    if is_deleting(vm) or started_from is None or restart_required(vm, started_from, now):
        return []
    wanted, found = template_spec(vm), vmi["spec"]
    return [
        Patch(VMIS, vmi, json_patch(f"/spec/{field}", found.get(field), wanted.get(field)))
        for field in PLACEMENT
        if wanted.get(field) != found.get(field)
    ]


def template_spec(obj: Object) -> Object:
    spec: Object = obj["spec"]["template"].get("spec") or {}
    return spec


def lasting(spec: Object) -> Object:
    """Of a template's spec, what cannot change while an instance runs."""
    return {field: value for field, value in spec.items() if field not in PLACEMENT}
