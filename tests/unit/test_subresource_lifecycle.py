"""What start, stop and restart write, and in which words they refuse: every run strategy with every instance."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.api.refusals import Refused
from clusters.kubevirt.api.subresources import lifecycle
from clusters.kubevirt.api.subresources.lifecycle import Patch
from clusters.kubevirt.api.subresources.options import RestartOptions, StartOptions, StopOptions
from tests.unit.virt_controller_support import make_vm, make_vmi
from virtflow.kube import Object
from virtflow.kube.resources import VMIS, VMS

STRATEGIES = ("Always", "Halted", "Manual", "RerunOnFailure", "Once", "WaitAsReceiver")
ALIVE = ("Pending", "Scheduling", "Scheduled", "Running")
INSTANCES = (None, *ALIVE, "Succeeded", "Failed")
REQUESTS = "/status/stateChangeRequests"
START, STOP = {"action": "Start"}, {"action": "Stop", "uid": "vmi-uid"}
CONFLICT = 'Operation cannot be fulfilled on virtualmachine.kubevirt.io "test-vm": '


def instance(phase: str | None) -> Object | None:
    return None if phase is None else make_vmi(phase)


def outcome(patches: Iterator[Patch]) -> list[Patch] | tuple[int, str]:
    try:
        return list(patches)
    except Refused as refusal:
        return refusal.status["code"], refusal.status["message"]


def strategy_patch(old: str, new: str) -> list[Patch]:
    test = {"op": "test", "path": "/spec/runStrategy", "value": old}
    return [Patch(VMS, [test, {"op": "replace", "path": "/spec/runStrategy", "value": new}])]


def request_patch(*requests: Object) -> list[Patch]:
    test = {"op": "test", "path": REQUESTS, "value": None}
    return [Patch(VMS, [test, {"op": "add", "path": REQUESTS, "value": list(requests)}], "status")]


def expected_start(strategy: str, phase: str | None) -> object:
    if phase in ALIVE:
        return 409, f"{CONFLICT}VM is already running"
    match strategy:
        case "Halted":
            return strategy_patch("Halted", "Always")
        case "Always" | "Once":
            return 409, f"{CONFLICT}{strategy} does not support manual start requests"
        case "RerunOnFailure" if phase == "Failed":
            return 409, f"{CONFLICT}RerunOnFailure does not support starting VM from failed state"
        case "Manual" | "RerunOnFailure":
            return request_patch(STOP, START) if phase else request_patch(START)
    return []


def expected_stop(strategy: str, phase: str | None) -> object:
    match strategy:
        case "Always" | "Once":
            return strategy_patch(strategy, "Halted")
        case "WaitAsReceiver":
            return []
    if phase not in ALIVE:
        return 409, f"{CONFLICT}VM is not running"
    if strategy == "Halted":
        return 409, f"{CONFLICT}Halted only supports manual stop requests with a shorter graceperiod"
    return request_patch(STOP)


def expected_restart(strategy: str, phase: str | None) -> object:
    if strategy in ("Halted", "Once"):
        return 409, f"{CONFLICT}RunStategy {strategy} does not support manual restart requests"
    if phase is None:
        return 409, f"{CONFLICT}VM is not running: Halted"
    return request_patch(STOP, START)


@pytest.mark.parametrize("phase", INSTANCES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_run_strategy_with_every_instance(strategy: str, phase: str | None) -> None:
    vm, vmi = make_vm(strategy=strategy, created=phase is not None, runStrategy=strategy), instance(phase)
    assert outcome(lifecycle.start(vm, vmi, StartOptions())) == expected_start(strategy, phase)
    assert outcome(lifecycle.stop(vm, vmi, StopOptions())) == expected_stop(strategy, phase)
    assert outcome(lifecycle.restart(vm, vmi)) == expected_restart(strategy, phase)


@pytest.mark.parametrize(("running", "act"), [(False, lifecycle.start), (True, lifecycle.stop)])
def test_the_deprecated_field_stays_the_one_that_is_written(
    running: bool, act: Callable[..., Iterator[Patch]]
) -> None:
    vm = make_vm(created=True)
    del vm["spec"]["runStrategy"]
    vm["spec"]["running"] = running
    options = StopOptions() if running else StartOptions()
    [patch] = act(vm, None, options)
    assert patch == Patch(
        VMS,
        [
            {"op": "test", "path": "/spec/running", "value": running},
            {"op": "replace", "path": "/spec/running", "value": not running},
        ],
    )


@pytest.mark.parametrize("strategy", ["Halted", "Manual", "RerunOnFailure"])
def test_a_paused_start_is_a_request_to_the_controller(strategy: str) -> None:
    vm = make_vm(strategy=strategy, runStrategy=strategy)
    wanted = {"action": "Start", "data": {"paused": "true"}}
    assert list(lifecycle.start(vm, None, StartOptions(paused=True))) == request_patch(wanted)


def test_the_first_status_of_all_is_added_whole() -> None:
    [patch] = lifecycle.start(make_vm(strategy="Manual"), None, StartOptions())
    assert patch.operations == [{"op": "add", "path": "/status", "value": {"stateChangeRequests": [START]}}]
    assert patch.subresource == "status"


def test_a_failed_start_is_forgotten() -> None:
    vm = make_vm(strategy="Manual", startFailure={"consecutiveFailCount": 2})
    [patch] = lifecycle.start(vm, None, StartOptions())
    assert patch.operations[-1] == {"op": "remove", "path": "/status/startFailure"}


def test_a_stop_displaces_what_waits_and_nothing_else_does() -> None:
    waiting = [STOP, START]
    vm = make_vm(strategy="Manual", stateChangeRequests=waiting)
    [patch] = lifecycle.stop(vm, make_vmi("Running"), StopOptions())
    assert patch.operations == [
        {"op": "test", "path": REQUESTS, "value": waiting},
        {"op": "replace", "path": REQUESTS, "value": [STOP]},
    ]
    underway = "Internal error occurred: unable to complete request: stop/start already underway"
    assert outcome(lifecycle.restart(vm, make_vmi("Running"))) == (500, underway)
    assert outcome(lifecycle.start(vm, None, StartOptions())) == (500, underway)


def grace_patch(old: int | None, new: int) -> Patch:
    path = "/spec/terminationGracePeriodSeconds"
    return Patch(VMIS, [{"op": "test", "path": path, "value": old}, {"op": "replace", "path": path, "value": new}])


def with_grace(seconds: int | None) -> Object:
    vmi = make_vmi("Running")
    if seconds is not None:
        vmi["spec"]["terminationGracePeriodSeconds"] = seconds
    return vmi


@pytest.mark.parametrize("strategy", ["Always", "Manual", "RerunOnFailure", "Once"])
def test_a_grace_period_is_written_to_the_instance_first(strategy: str) -> None:
    vm = make_vm(strategy=strategy, created=True)
    first, *rest = lifecycle.stop(vm, with_grace(30), StopOptions(grace_period=5))
    assert first == grace_patch(30, 5)
    assert rest == expected_stop(strategy, "Running")
    assert list(lifecycle.stop(make_vm(created=True), make_vmi("Failed"), StopOptions(grace_period=5))) == (
        strategy_patch("Always", "Halted")
    )


@pytest.mark.parametrize(
    ("old", "asked", "stops"), [(30, 5, True), (None, 5, True), (30, 30, False), (30, 31, False)]
)
def test_a_halted_vm_stops_faster_and_not_slower(old: int | None, asked: int, stops: bool) -> None:
    vm = make_vm(strategy="Halted", created=True)
    patches = lifecycle.stop(vm, with_grace(old), StopOptions(grace_period=asked))
    # KubeVirt writes it before it refuses.
    assert next(patches) == grace_patch(old, asked)
    refusal = 409, f"{CONFLICT}Halted only supports manual stop requests with a shorter graceperiod"
    assert outcome(patches) == (request_patch(STOP) if stops else refusal)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (1, "For force restart, only gracePeriod=0 is supported for now"),
        (-1, "gracePeriod has to be greater or equal to 0"),
    ],
)
def test_a_restart_is_forced_at_once_or_not_at_all(seconds: int, message: str) -> None:
    with pytest.raises(Refused) as refused:
        lifecycle.check_restart(RestartOptions(grace_period_seconds=seconds))
    assert (refused.value.status["code"], refused.value.status["message"]) == (400, message)
    for served in (0, None):
        lifecycle.check_restart(RestartOptions(grace_period_seconds=served))


@given(st.data())
def test_whatever_is_written_is_tested_first(data: st.DataObject) -> None:
    status: dict[str, Any] = {"created": True}
    if data.draw(st.booleans()):
        status["stateChangeRequests"] = [STOP]
    vm = make_vm(strategy=data.draw(st.sampled_from(STRATEGIES)), **status)
    vmi = instance(data.draw(st.sampled_from(INSTANCES)))
    patches = data.draw(
        st.sampled_from(
            [
                lifecycle.start(vm, vmi, StartOptions(paused=data.draw(st.booleans()))),
                lifecycle.stop(vm, vmi, StopOptions(grace_period=data.draw(st.none() | st.integers(0, 60)))),
                lifecycle.restart(vm, vmi),
            ]
        )
    )
    found = outcome(patches)
    if isinstance(found, tuple):
        assert found[0] in (409, 500)
        return
    for patch in found:
        test, change = patch.operations
        assert (test["op"], test["path"]) == ("test", change["path"])
