import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.controller import vmirs as reconciler
from clusters.kubevirt.controller.writes import Create, Delete, Replace
from tests.unit.virt_controller_support import deleting, make_vmi, make_vmirs
from virtflow.kube import Object

READY = {"type": "Ready", "status": "True"}


def member(name: str, phase: str = "Running", *, ready: bool = True, going: bool = False) -> Object:
    vmi = make_vmi(phase, make_vmirs(1), conditions=[READY] if ready else [])
    vmi["metadata"] |= {"name": name, "uid": name}
    return deleting(vmi) if going else vmi


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
    writes = reconciler.spec_writes(make_vmirs(wanted), there)
    active = reconciler.active_of(there)
    finished = [vmi for vmi in there if vmi["status"]["phase"] in ("Succeeded", "Failed")]
    ended = [write.target for write in writes if isinstance(write, Delete)]
    made = sum(isinstance(write, Create) for write in writes)
    assert len(active) + made - sum(vmi not in finished for vmi in ended) == wanted
    assert all("deletionTimestamp" not in vmi["metadata"] for vmi in ended)


def test_who_is_not_ready_goes_first() -> None:
    there = [member("a"), member("b", "Scheduling", ready=False), member("c")]
    (write,) = reconciler.spec_writes(make_vmirs(2), there)
    assert isinstance(write, Delete)
    assert write.target["metadata"]["name"] == "b"


def test_a_member_is_made_from_the_template_under_the_sets_name() -> None:
    (write,) = reconciler.spec_writes(make_vmirs(1), [])
    assert isinstance(write, Create)
    assert write.body["metadata"]["generateName"] == "test-vmirs"
    assert write.body["metadata"]["labels"] == {"app": "test"}
    assert write.body["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachineInstanceReplicaSet"
    assert "finalizers" not in write.body["metadata"]


def test_a_set_that_goes_or_is_paused_makes_nothing() -> None:
    paused = make_vmirs(3)
    paused["spec"]["paused"] = True
    assert reconciler.spec_writes(paused, []) == []
    assert reconciler.spec_writes(deleting(make_vmirs(3)), []) == []
    assert reconciler.status_writes(deleting(make_vmirs(3)), []) == []


def test_the_status_counts_who_is_neither_finished_nor_going() -> None:
    there = [member("a"), member("b", ready=False), member("c", going=True), member("d", "Failed")]
    (write,) = reconciler.status_writes(make_vmirs(2), there)
    assert isinstance(write, Replace)
    assert write.body["status"] == {"replicas": 2, "readyReplicas": 1, "labelSelector": "app=test"}
    assert reconciler.status_writes(write.body, there) == []


def test_nothing_is_said_of_zero() -> None:
    (write,) = reconciler.status_writes(make_vmirs(2), [])
    assert isinstance(write, Replace)
    assert write.body["status"] == {"labelSelector": "app=test"}


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2"),
        ({"matchExpressions": [{"key": "k", "operator": "In", "values": ["y", "x"]}]}, "k in (x,y)"),
        ({"matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["x"]}]}, "k notin (x)"),
        ({"matchExpressions": [{"key": "k", "operator": "Exists"}]}, "k"),
        ({"matchExpressions": [{"key": "k", "operator": "DoesNotExist"}]}, "!k"),
    ],
)
def test_the_selector_as_text(selector: Object, text: str) -> None:
    assert reconciler.format_selector(selector) == text


def test_annotations_come_before_anything_else() -> None:
    vmirs = make_vmirs(1)
    vmirs["metadata"]["annotations"] = {"own": "kept"}
    (write,) = reconciler.metadata_writes(vmirs)
    assert isinstance(write, Replace)
    assert write.body["metadata"]["annotations"]["own"] == "kept"
    assert reconciler.metadata_writes(write.body) == []
