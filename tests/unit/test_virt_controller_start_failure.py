from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.controller import vm as reconciler
from clusters.kubevirt.controller.run_strategy import backoff
from clusters.kubevirt.controller.start_failure import LONGEST_DELAY, delay, next_start_failure, time_left
from clusters.kubevirt.controller.writes import Create, Delete, Replace
from clusters.kubevirt.objects import parse_time
from tests.unit.virt_controller_support import HAS_RUN, NOW, deleting, make_vm, make_vmi
from virtflow.kube import Object

SECOND = timedelta(seconds=1)
UIDS = st.uuids().map(str)
FAILURE = {
    "consecutiveFailCount": 2,
    "lastFailedVMIUID": "vmi-uid",
    "retryAfterTimestamp": "2026-11-23T06:30:46Z",
}
"""Of NOW's minute before."""


def ended(uid: str, phase: str = "Failed") -> Object:
    vmi = make_vmi(phase)
    vmi["metadata"]["uid"] = uid
    return vmi


def status_of(vm: Object, vmi: Object | None) -> Object:
    (write,) = reconciler.status_writes(vm, vmi, [], NOW)
    assert isinstance(write, Replace)
    status: Object = write.body["status"]
    return status


@pytest.mark.parametrize(
    ("count", "shortest", "longest"), [(1, 10, 15), (2, 40, 60), (3, 90, 135), (4, 160, 240), (5, 250, 300)]
)
def test_the_delay_grows_with_the_square_of_the_failures(count: int, shortest: int, longest: int) -> None:
    delays = [delay(count, str(uid)) for uid in range(100)]
    assert min(delays) >= shortest * SECOND
    assert max(delays) <= longest * SECOND
    assert max(delays) - min(delays) > (longest - shortest) * SECOND / 2, "those that fail together retry together"


@given(st.integers(6, 10_000), UIDS)
def test_the_delay_has_an_upper_bound(count: int, uid: str) -> None:
    assert delay(count, uid) == LONGEST_DELAY


@given(st.lists(UIDS, min_size=1, max_size=8, unique=True), st.sampled_from(["Failed", "Succeeded"]))
def test_each_instance_that_never_ran_is_counted_once(uids: list[str], phase: str) -> None:
    failure: Object | None = None
    for count, uid in enumerate(uids, start=1):
        failure = next_start_failure(failure, ended(uid, phase), NOW)
        assert failure is not None
        assert failure["consecutiveFailCount"] == count
        assert failure["lastFailedVMIUID"] == uid
        waits = parse_time(failure["retryAfterTimestamp"]) - NOW
        assert delay(count, uid) - SECOND < waits <= delay(count, uid)
        assert next_start_failure(failure, deleting(ended(uid, phase)), NOW + LONGEST_DELAY) == failure
        assert next_start_failure(failure, None, NOW) == failure
        assert next_start_failure(failure, make_vmi("Scheduled"), NOW) == failure


@pytest.mark.parametrize("phase", ["Running", "Failed", "Succeeded"])
def test_an_instance_that_ran_ends_the_count(phase: str) -> None:
    assert next_start_failure(FAILURE, make_vmi(phase, phaseTransitionTimestamps=HAS_RUN), NOW) is None


@given(st.timedeltas(timedelta(0), timedelta(minutes=10)))
def test_the_time_left_shrinks_to_nothing(passed: timedelta) -> None:
    left = time_left(FAILURE, NOW + passed)
    assert left == max(timedelta(minutes=1) - passed, timedelta(0))
    assert time_left(None, NOW + passed) == timedelta(0)


@given(st.timedeltas(timedelta(minutes=4, seconds=1), timedelta(days=900)))
def test_nobody_waits_for_a_time_that_a_clock_since_set_back_has_given(step: timedelta) -> None:
    assert time_left(FAILURE, NOW - step) == timedelta(0)


@pytest.mark.parametrize(
    ("strategy", "waits"), [("Always", True), ("RerunOnFailure", True), ("Once", False), ("Halted", False)]
)
def test_who_waits_before_the_next_start(strategy: str, waits: bool) -> None:
    vm = make_vm(strategy=strategy, startFailure=FAILURE)
    assert backoff(vm, NOW) == (timedelta(minutes=1) if waits else timedelta(0))
    assert bool(reconciler.spec_writes(vm, None, [], NOW)) is (strategy == "Once")
    later = NOW + timedelta(minutes=1)
    assert backoff(vm, later) == timedelta(0)
    creates = [write for write in reconciler.spec_writes(vm, None, [], later) if isinstance(write, Create)]
    assert bool(creates) is (strategy != "Halted")


@pytest.mark.parametrize("strategy", ["Always", "RerunOnFailure", "Once"])
def test_the_status_tells_of_failed_starts_until_an_instance_runs(strategy: str) -> None:
    vm = make_vm(strategy=strategy)
    failed = status_of(vm, make_vmi("Failed"))
    assert failed["startFailure"].items() >= {"consecutiveFailCount": 1, "lastFailedVMIUID": "vmi-uid"}.items()
    assert failed["printableStatus"] == "CrashLoopBackOff"
    waiting = status_of({**vm, "status": failed}, None)
    assert (waiting["startFailure"], waiting["printableStatus"]) == (failed["startFailure"], "CrashLoopBackOff")
    again = status_of({**vm, "status": waiting}, make_vmi("Pending"))
    assert (again["startFailure"], again["printableStatus"]) == (failed["startFailure"], "Starting")
    running = status_of({**vm, "status": again}, make_vmi("Running", phaseTransitionTimestamps=HAS_RUN))
    assert "startFailure" not in running
    assert running["printableStatus"] == "Running"


def test_halting_forgets_failed_starts() -> None:
    halted = status_of(make_vm(strategy="Halted", startFailure=FAILURE), None)
    assert "startFailure" not in halted
    assert halted["printableStatus"] == "Stopped"


def test_an_instance_that_never_ran_may_not_vanish_uncounted() -> None:
    vm, vmi = make_vm(), make_vmi("Failed")
    vmi["metadata"]["finalizers"] = ["kubevirt.io/virtualMachineControllerFinalize"]
    assert any(isinstance(write, Delete) for write in reconciler.spec_writes(vm, vmi, [], NOW))
    assert reconciler.spec_writes(vm, deleting(vmi), [], NOW) == []
    vm["status"] = status_of(vm, deleting(vmi))
    (let_go,) = reconciler.spec_writes(vm, deleting(vmi), [], NOW + LONGEST_DELAY)
    assert let_go.resource.kind == "VirtualMachineInstance"
