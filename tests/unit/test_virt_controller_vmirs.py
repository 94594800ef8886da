from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.controller import vmirs as reconciler
from clusters.kubevirt.controller.writes import Create, Delete, Replace
from tests.unit.virt_controller_support import NOW, TIME, deleting, make_vmi, make_vmirs
from virtflow.kube import Object

READY = {"type": "Ready", "status": "True"}
LOSES_POD = {"type": "Ready", "status": "False", "reason": "PodTerminating"}


def member(name: str, phase: str = "Running", *, ready: bool = True, going: bool = False) -> Object:
    vmi = make_vmi(phase, make_vmirs(1), conditions=[READY] if ready else [])
    vmi["metadata"] |= {"name": name, "uid": name}
    return deleting(vmi) if going else vmi


def paused(vmirs: Object) -> Object:
    return {**vmirs, "spec": {**vmirs["spec"], "paused": True}}


members = st.lists(
    st.builds(
        lambda phase, ready, going: member("any", phase, ready=ready, going=going),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@given(wanted=st.integers(0, 12), there=members)
def test_afterwards_there_are_as_many_as_wanted(wanted: int, there: list[Object]) -> None:
    writes = reconciler.scale_writes(make_vmirs(wanted), there)
    ended = [write.target for write in writes if isinstance(write, Delete)]
    made = sum(isinstance(write, Create) for write in writes)
    assert len(reconciler.active_of(there)) + made - len(ended) == wanted
    assert all(vmi in reconciler.active_of(there) for vmi in ended)


@given(there=members)
def test_whoever_serves_no_more_is_cleaned_up_once(there: list[Object]) -> None:
    ended = [write.target for write in reconciler.cleanup_writes(make_vmirs(1), there) if isinstance(write, Delete)]
    finished = [vmi for vmi in there if vmi["status"]["phase"] in ("Succeeded", "Failed")]
    assert ended == [vmi for vmi in finished if "deletionTimestamp" not in vmi["metadata"]]


def test_one_that_loses_its_pod_counts_no_more_and_goes() -> None:
    going = member("a")
    going["status"]["conditions"] = [LOSES_POD]
    (made,) = reconciler.scale_writes(make_vmirs(1), [going])
    (ended,) = reconciler.cleanup_writes(make_vmirs(1), [going])
    assert isinstance(made, Create)
    assert isinstance(ended, Delete)
    assert ended.done is not None
    assert ended.done.message == "Deleted finished virtual machine: a"


def test_who_is_not_ready_goes_first() -> None:
    there = [member("a"), member("b", "Scheduling", ready=False), member("c")]
    (write,) = reconciler.scale_writes(make_vmirs(2), there)
    assert isinstance(write, Delete)
    assert write.target["metadata"]["name"] == "b"


@given(order=st.permutations(range(6)), wanted=st.integers(0, 6))
def test_a_repeated_pass_chooses_the_same_ones(order: list[int], wanted: int) -> None:
    there = [member(f"vmi-{number}") for number in range(6)]
    chosen = [
        write.target for write in reconciler.scale_writes(make_vmirs(wanted), there) if isinstance(write, Delete)
    ]
    again = reconciler.scale_writes(make_vmirs(wanted), [there[index] for index in order])
    assert [write.target for write in again if isinstance(write, Delete)] == chosen


def test_a_member_is_made_from_the_template_under_the_sets_name() -> None:
    (write,) = reconciler.scale_writes(make_vmirs(1), [])
    assert isinstance(write, Create)
    assert write.body["metadata"]["generateName"] == "test-vmirs"
    assert write.body["metadata"]["labels"] == {"app": "test"}
    assert write.body["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachineInstanceReplicaSet"
    assert "finalizers" not in write.body["metadata"]


@pytest.mark.parametrize(
    ("meta", "base"), [({"name": "n", "generateName": "g"}, "n"), ({"generateName": "g"}, "g"), ({}, "test-vmirs")]
)
def test_the_template_may_have_another_name_for_them(meta: Object, base: str) -> None:
    vmirs = make_vmirs(1)
    vmirs["spec"]["template"]["metadata"] |= meta
    (write,) = reconciler.scale_writes(vmirs, [])
    assert isinstance(write, Create)
    assert write.body["metadata"]["generateName"] == base
    assert "name" not in write.body["metadata"]


def test_a_set_that_goes_or_is_paused_makes_and_ends_nobody() -> None:
    there = [member("a", "Failed")]
    for vmirs in (paused(make_vmirs(3)), deleting(make_vmirs(3))):
        assert reconciler.scale_writes(vmirs, there) == []
        assert reconciler.cleanup_writes(vmirs, there) == []


def test_more_than_a_burst_takes_more_than_one_pass() -> None:
    there = [member(f"vmi-{number}") for number in range(300)]
    assert len(reconciler.scale_writes(make_vmirs(300), [])) == 250
    assert len(reconciler.scale_writes(make_vmirs(0), there)) == 250


def test_a_set_that_would_not_own_what_it_makes_is_not_valid() -> None:
    valid, foreign, bare = make_vmirs(1), make_vmirs(1), make_vmirs(1)
    foreign["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    bare["spec"] |= {"selector": {}, "template": {"spec": {}}}
    assert [reconciler.is_valid(vmirs) for vmirs in (valid, foreign, bare)] == [True, False, False]


def status_of(vmirs: Object, there: list[Object], failure: str | None = None) -> Object:
    (write,) = reconciler.status_writes(vmirs, there, failure, NOW)
    assert isinstance(write, Replace)
    assert reconciler.status_writes(write.body, there, failure, NOW) == []
    status: Object = write.body["status"]
    return status


def test_the_status_counts_who_is_neither_finished_nor_going() -> None:
    there = [member("a"), member("b", ready=False), member("c", going=True), member("d", "Failed")]
    assert status_of(make_vmirs(2), there) == {"replicas": 2, "readyReplicas": 1, "labelSelector": "app=test"}


def test_nothing_is_said_of_zero() -> None:
    assert status_of(make_vmirs(2), []) == {"labelSelector": "app=test"}


def test_a_pause_and_its_end_are_told() -> None:
    vmirs = paused(make_vmirs(1))
    (write,) = reconciler.status_writes(vmirs, [], None, NOW)
    assert isinstance(write, Replace)
    assert write.body["status"]["conditions"] == [
        {
            "type": "ReplicaPaused",
            "status": "True",
            "reason": "Paused",
            "message": "Controller got paused",
            "lastProbeTime": None,
            "lastTransitionTime": TIME,
        }
    ]
    assert write.done is not None
    assert (write.done.reason, write.done.message) == ("SuccessfulPaused", "Paused")
    assert write.done.component == "virtualmachinereplicaset-controller"
    resumed = deepcopy(write.body)
    resumed["spec"]["paused"] = False
    (write,) = reconciler.status_writes(resumed, [], None, NOW)
    assert isinstance(write, Replace)
    assert "conditions" not in write.body["status"]
    assert write.done is not None
    assert (write.done.reason, write.done.message) == ("SuccessfulResumed", "Resumed")


@pytest.mark.parametrize(("replicas", "reason"), [(2, "FailedCreate"), (0, "FailedDelete")])
def test_a_failure_is_told_until_nothing_fails_any_more(replicas: int, reason: str) -> None:
    vmirs, there = make_vmirs(replicas), [member("a")]
    vmirs["status"] = status_of(vmirs, there, "exceeded quota")
    (told,) = vmirs["status"]["conditions"]
    assert (told["type"], told["status"], told["reason"]) == ("ReplicaFailure", "True", reason)
    assert told["message"] == "exceeded quota"
    # Another failure meanwhile is not told.
    assert reconciler.status_writes(vmirs, there, "something else", NOW) == []
    (write,) = reconciler.status_writes(vmirs, there, None, NOW)
    assert isinstance(write, Replace)
    assert "conditions" not in write.body["status"]
    assert write.done is None


def test_annotations_come_before_anything_else() -> None:
    vmirs = make_vmirs(1)
    vmirs["metadata"]["annotations"] = {"own": "kept"}
    (write,) = reconciler.metadata_writes(vmirs)
    assert isinstance(write, Replace)
    assert write.body["metadata"]["annotations"]["own"] == "kept"
    assert reconciler.metadata_writes(write.body) == []
