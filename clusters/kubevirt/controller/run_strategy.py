"""What a VirtualMachine's run strategy, and what people ask of it, mean for its instance.

Always keeps one running; RerunOnFailure replaces one that failed, Once and Manual none; Halted has none. What
virtctl asks for stands in `status.stateChangeRequests`, and only the first is looked at: a restart is a stop of
the instance by its uid, so that it can never hit the next one, and after it a start.
"""

from datetime import datetime, timedelta

from clusters.kubevirt.controller.start_failure import next_start_failure, time_left
from clusters.kubevirt.objects import is_deleting, is_final, phase_of, run_strategy, status_of
from virtflow.kube import Object

__all__ = [
    "ORPHAN_FINALIZER",
    "asks_for_start",
    "backoff",
    "next_run_strategy",
    "open_requests",
    "orphans",
    "should_rerun",
    "should_start",
    "should_stop",
    "start_failure",
    "starts_paused",
]

ORPHAN_FINALIZER = "orphan"
"""The garbage collector's, on an object whose dependents are to be left when it goes."""

STARTING_STRATEGIES = ("Always", "RerunOnFailure", "Once")
RESTARTING_STRATEGIES = ("Always", "RerunOnFailure")


def orphans(vm: Object) -> bool:
    """Whether the VM is deleted in a way that leaves its instance."""
    return is_deleting(vm) and ORPHAN_FINALIZER in vm["metadata"].get("finalizers", [])


def first_request(vm: Object) -> Object:
    requests: list[Object] = status_of(vm).get("stateChangeRequests", [])
    return requests[0] if requests else {}


def asks_for_start(vm: Object) -> bool:
    return first_request(vm).get("action") == "Start"


def asks_for_stop(vm: Object, vmi: Object) -> bool:
    request = first_request(vm)
    return request.get("action") == "Stop" and request.get("uid") == vmi["metadata"]["uid"]


def starts_paused(vm: Object) -> bool:
    return asks_for_start(vm) and first_request(vm).get("data", {}).get("paused") == "true"


def open_requests(vm: Object, vmi: Object | None) -> list[Object]:
    """The requests without the first, if that has come about."""
    requests: list[Object] = status_of(vm).get("stateChangeRequests", [])
    match first_request(vm).get("action"):
        case "Start":
            done = vmi is not None and not is_deleting(vmi) and not is_final(vmi)
        case "Stop":
            done = vmi is None or not asks_for_stop(vm, vmi)
        case _:
            done = False
    return requests[1:] if done else requests


def should_start(vm: Object, now: datetime) -> bool:
    """Whether a VM without an instance is to get one."""
    if is_deleting(vm) or backoff(vm, now):
        return False
    match run_strategy(vm):
        case "Always" | "Once":
            return True
        case "RerunOnFailure":
            return not_yet_started(vm) or asks_for_start(vm)
        case "Manual":
            return asks_for_start(vm)
        case _:
            return False


def not_yet_started(vm: Object) -> bool:
    """Whether a VM has not had an instance under the strategy it has now."""
    return status_of(vm).get("runStrategy") != run_strategy(vm)


def next_run_strategy(vm: Object, vmi: Object | None) -> str | None:
    """What `status.runStrategy` is to say: once there has been an instance, the strategy.

    Where a VM is still to be started because its strategy is new, the old one stays: else a start that fails, or is
    put off, would be forgotten.
    """
    told: str | None = status_of(vm).get("runStrategy")
    strategy = run_strategy(vm)
    if vmi is None and (told is None or (strategy == "RerunOnFailure" and not_yet_started(vm))):
        return told
    return strategy


def should_stop(vm: Object, vmi: Object) -> bool:
    """Whether a VM's instance, which is not being deleted yet, is to be."""
    if is_deleting(vm):
        return not orphans(vm)
    match run_strategy(vm):
        case "Halted":
            return True
        case "Always" | "RerunOnFailure":
            return is_final(vmi) or asks_for_stop(vm, vmi)
        case "Manual":
            return asks_for_stop(vm, vmi)
        case _:
            return False


def should_rerun(vm: Object, vmi: Object) -> bool:
    """Whether a new start is to be asked for, before the instance that failed is deleted and its end forgotten."""
    failed = run_strategy(vm) == "RerunOnFailure" and phase_of(vmi) == "Failed"
    # Not only the first request: while the delete is refused, each retry would add another one behind it.
    asked = any(request["action"] == "Start" for request in status_of(vm).get("stateChangeRequests", []))
    return failed and not is_deleting(vm) and not asked


def backoff(vm: Object, now: datetime) -> timedelta:
    """How much longer the next start is put off, because the last ones failed; zero if it is not."""
    if run_strategy(vm) not in RESTARTING_STRATEGIES:
        return timedelta(0)
    return time_left(status_of(vm).get("startFailure"), now)


def start_failure(vm: Object, vmi: Object | None, now: datetime) -> Object | None:
    """What `status.startFailure` should be; nothing for a VM that is not to be started by itself."""
    if run_strategy(vm) not in STARTING_STRATEGIES:
        return None
    return next_start_failure(status_of(vm).get("startFailure"), vmi, now)
