"""Start, stop and restart: what virt-api writes for each run strategy, or why it refuses.

virt-api stops and starts nothing itself. Where the run strategy says whether a VM is to run, it changes that;
where it leaves that open, it puts a request into the VM's status, which virt-controller carries out. Each function
looks at the VM and its instance and yields the patches one by one: KubeVirt refuses some requests only after the
first is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from clusters.kubevirt.api.subresources.options import RestartOptions, StartOptions, StopOptions
from clusters.kubevirt.api.subresources.statuses import VM, bad_request, conflict, internal
from clusters.kubevirt.objects import FINAL_PHASES, json_patch, run_strategy
from virtflow.kube import Object, Resource
from virtflow.kube.resources import VMIS, VMS

__all__ = ["Patch", "check_restart", "restart", "start", "stop"]

NOT_RUNNING = "VM is not running"


@dataclass(frozen=True)
class Patch:
    """A JSON patch of the VM or of its instance, which has the same name."""

    resource: Resource
    operations: list[Object]
    subresource: Literal["status"] | None = None


def start(vm: Object, vmi: Object | None, options: StartOptions) -> Iterator[Patch]:
    name, strategy, phase = name_of(vm), run_strategy(vm), phase_of(vmi)
    if vmi is not None and phase not in (*FINAL_PHASES, "Unknown", ""):
        raise conflict(VM, name, "VM is already running")
    wanted = {"action": "Start", **({"data": {"paused": "true"}} if options.paused else {})}
    match strategy:
        case "Halted":
            yield state_change(vm, [wanted]) if options.paused else running(vm, True)
        case "RerunOnFailure" if phase == "Failed":
            raise conflict(VM, name, "RerunOnFailure does not support starting VM from failed state")
        case "RerunOnFailure" | "Manual":
            # A finished instance is still there, and has to go first.
            yield state_change(vm, [*([stop_of(vmi)] if vmi is not None and phase in FINAL_PHASES else []), wanted])
        case "Always" | "Once":
            raise conflict(VM, name, f"{strategy} does not support manual start requests")


def stop(vm: Object, vmi: Object | None, options: StopOptions) -> Iterator[Patch]:
    name, strategy = name_of(vm), run_strategy(vm)
    alive = vmi is not None and phase_of(vmi) not in FINAL_PHASES
    old = vmi["spec"].get("terminationGracePeriodSeconds") if vmi is not None else None
    if alive and options.grace_period is not None:
        yield Patch(VMIS, json_patch("/spec/terminationGracePeriodSeconds", old, options.grace_period))
    match strategy:
        case "Always" | "Once":
            yield running(vm, False)
        case "Halted" | "Manual" | "RerunOnFailure":
            if vmi is None or not alive:
                raise conflict(VM, name, NOT_RUNNING)
            grace = options.grace_period
            if strategy == "Halted" and (grace is None or (old is not None and grace >= old)):
                raise conflict(VM, name, "Halted only supports manual stop requests with a shorter graceperiod")
            yield state_change(vm, [stop_of(vmi)])


def check_restart(options: RestartOptions) -> None:
    """What is refused before anything is looked at."""
    grace = options.grace_period_seconds or 0
    if grace > 0:
        raise bad_request("For force restart, only gracePeriod=0 is supported for now")
    if grace < 0:
        raise bad_request("gracePeriod has to be greater or equal to 0")


def restart(vm: Object, vmi: Object | None) -> Iterator[Patch]:
    name, strategy = name_of(vm), run_strategy(vm)
    if strategy in ("Halted", "Once"):
        # KubeVirt's own spelling.
        raise conflict(VM, name, f"RunStategy {strategy} does not support manual restart requests")
    if vmi is None:
        raise conflict(VM, name, f"{NOT_RUNNING}: Halted")
    yield state_change(vm, [stop_of(vmi), {"action": "Start"}])


def state_change(vm: Object, wanted: list[Object]) -> Patch:
    """Requests for virt-controller. A lone stop displaces what waits there; anything else waits its turn."""
    status: Object = vm.get("status") or {}
    waiting = status.get("stateChangeRequests") or None
    path = "/status/stateChangeRequests"
    operations: list[Object]
    if not status:
        operations = [{"op": "add", "path": "/status", "value": {"stateChangeRequests": wanted}}]
    elif waiting is None:
        operations = [{"op": "test", "path": path, "value": None}, {"op": "add", "path": path, "value": wanted}]
    elif [each["action"] for each in wanted] == ["Stop"]:
        operations = json_patch(path, waiting, wanted)
    else:
        raise internal("unable to complete request: stop/start already underway")
    if status.get("startFailure"):
        operations.append({"op": "remove", "path": "/status/startFailure"})
    return Patch(VMS, operations, "status")


def running(vm: Object, wanted: bool) -> Patch:
    """The run strategy, in the field that the VM has it in."""
    spec = vm["spec"]
    if "runStrategy" in spec:
        return Patch(VMS, json_patch("/spec/runStrategy", spec["runStrategy"], "Always" if wanted else "Halted"))
    return Patch(VMS, json_patch("/spec/running", spec.get("running"), wanted))


def stop_of(vmi: Object) -> Object:
    return {"action": "Stop", "uid": vmi["metadata"]["uid"]}


def phase_of(vmi: Object | None) -> str:
    phase: str = ((vmi or {}).get("status") or {}).get("phase", "")
    return phase


def name_of(vm: Object) -> str:
    name: str = vm["metadata"]["name"]
    return name
