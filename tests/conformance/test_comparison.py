"""Every kind of difference is found and named: accounts of the recordings, changed in one place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.compare import ABOUT, Account, compare, watched_part
from tests.conformance.situations import load_situations
from tests.conformance.support import observed

ACCOUNTS = {situation.name: situation.account for situation in load_situations()}
few = settings(max_examples=40)


@st.composite
def runs(draw: st.DrawFn, *, having: str = "course") -> tuple[Account, Account]:
    """What was recorded of a situation, and a run of it that agrees."""
    account = draw(st.sampled_from([each for each in ACCOUNTS.values() if each[having]]))
    return account, observed(account)


@st.composite
def steps(draw: st.DrawFn, *, at_least: int = 1) -> tuple[Account, Account, str, str, list[str]]:
    """A run, and in it an aspect of an object with the steps it took, to be changed in place."""
    recorded, run = draw(runs())
    places = [
        (history["object"], aspect, taken)
        for history in run["course"]
        for aspect, taken in history.items()
        if aspect not in ABOUT and len(taken) >= at_least
    ]
    return recorded, run, *draw(st.sampled_from(places or [("", "", [""] * at_least)]))


def is_optional(recorded: Account, name: str, aspect: str, step: str) -> bool:
    return any({"sometimes": step} in each.get(aspect, ()) for each in recorded["course"] if each["object"] == name)


@pytest.mark.parametrize("name", ACCOUNTS)
@pytest.mark.parametrize("keep_sometimes", [True, False])
def test_a_run_as_recorded_agrees(name: str, keep_sometimes: bool) -> None:
    assert compare(ACCOUNTS[name], observed(ACCOUNTS[name], keep_sometimes=keep_sometimes)) == []


@few
@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_objects_is_of_no_account(run: tuple[Account, Account], random: object) -> None:
    recorded, there = run
    lives = {each["object"] for each in there["course"]}
    # Those of one name that is not drawn come after one another.
    groups = [[each for each in there["course"] if each["object"] == name] for name in sorted(lives)]
    random.shuffle(groups)  # type: ignore[attr-defined]
    there["course"] = [each for group in groups for each in group]
    random.shuffle(there["objects"])  # type: ignore[attr-defined]
    assert compare(recorded, there) == []


@few
@given(steps(), st.data())
def test_a_write_that_is_missing_is_named(
    case: tuple[Account, Account, str, str, list[str]], data: st.DataObject
) -> None:
    recorded, run, name, aspect, taken = case
    step = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
    if is_optional(recorded, name, aspect, step):
        assert compare(recorded, run) == []
        return
    first = compare(recorded, run)[0]
    assert first.startswith(f"{name}: {aspect}: expected ")
    assert repr(step) in first


@few
@given(steps(), st.data())
def test_a_write_too_many_is_named(case: tuple[Account, Account, str, str, list[str]], data: st.DataObject) -> None:
    recorded, run, name, aspect, taken = case
    taken.insert(data.draw(st.integers(0, len(taken))), "virt-controller Unheard-of")
    first = compare(recorded, run)[0]
    assert first.startswith(f"{name}: {aspect}: expected ")
    assert first.endswith("observed 'virt-controller Unheard-of'")


@few
@given(steps(at_least=2), st.data())
def test_writes_in_another_order_are_named(
    case: tuple[Account, Account, str, str, list[str]], data: st.DataObject
) -> None:
    recorded, run, name, aspect, taken = case
    at = data.draw(st.integers(0, len(taken) - 2))
    if not name or taken[at] == taken[at + 1]:
        return
    taken[at], taken[at + 1] = taken[at + 1], taken[at]
    first = compare(recorded, run)[0]
    assert first.startswith(f"{name}: {aspect}: expected ")


@few
@given(steps(), st.data())
def test_another_actor_is_named(case: tuple[Account, Account, str, str, list[str]], data: st.DataObject) -> None:
    recorded, run, name, aspect, taken = case
    at = data.draw(st.integers(0, len(taken) - 1))
    taken[at] = f"mallory (curl) {taken[at].partition(' ')[2]}"
    first = compare(recorded, run)[0]
    assert first.startswith(f"{name}: {aspect}: expected ")
    assert "observed 'mallory (curl)" in first


@few
@given(runs())
def test_a_stranger_s_write_is_named(run: tuple[Account, Account]) -> None:
    recorded, there = run
    there["course"][0]["strangers"] = ["mallory (curl) writes"]
    assert compare(recorded, there) == [
        f"{there['course'][0]['object']}: strangers: expected nothing, observed 'mallory (curl) writes'"
    ]


@few
@given(runs(), st.data())
def test_an_object_that_nobody_wrote_is_named(run: tuple[Account, Account], data: st.DataObject) -> None:
    recorded, there = run
    lost = there["course"].pop(data.draw(st.integers(0, len(there["course"]) - 1)))
    line = next(each for each in compare(recorded, there) if ", observed none" in each or "expected " in each)
    assert line.startswith(f"{lost['object']}: ")


@few
@given(runs())
def test_an_object_that_should_not_be_there_is_named(run: tuple[Account, Account]) -> None:
    recorded, there = run
    there["course"].append({"object": "Pod stray", "life": ["virt-controller creates"]})
    there["objects"].append({"object": "Pod stray", "status": {"phase": "Running"}})
    assert compare(recorded, there) == [
        "Pod stray: expected none, observed one, of which one has life ['virt-controller creates']",
        "Pod stray: expected none, observed one, of which one has status {'phase': 'Running'}",
    ]


@pytest.mark.parametrize("part", ["labels", "annotations", "finalizers", "owners", "conditions"])
@few
@given(run=runs(having="objects"), data=st.data(), change=st.sampled_from(["lost", "changed", "added"]))
def test_metadata_and_conditions_that_differ_are_named(
    part: str, run: tuple[Account, Account], data: st.DataObject, change: str
) -> None:
    recorded, there = run
    having = [each for each in there["objects"] if part in each]
    if not having:
        return
    obj = data.draw(st.sampled_from(having))
    if change != "added":
        lost = obj[part].pop(data.draw(st.integers(0, len(obj[part]) - 1)))
    if change != "lost":
        obj[part].append("something else")
    (line,) = compare(recorded, there)
    assert line.startswith(f"{obj['object']}: {part}: expected ")
    assert ("nothing more" if change == "added" else repr(lost)) in line
    assert line.endswith("observed nothing more" if change == "lost" else "observed 'something else'")


@few
@given(runs(having="objects"), st.data())
def test_a_condition_in_other_words_is_named(run: tuple[Account, Account], data: st.DataObject) -> None:
    recorded, there = run
    obj = data.draw(st.sampled_from([each for each in there["objects"] if "conditions" in each]))
    before = obj["conditions"][0]
    obj["conditions"][0] += "!"
    assert compare(recorded, there) == [
        f"{obj['object']}: conditions: expected {before!r}, observed {before + '!'!r}"
    ]


@few
@given(runs(having="objects"), st.data())
def test_a_status_that_differs_is_named(run: tuple[Account, Account], data: st.DataObject) -> None:
    recorded, there = run
    obj = data.draw(st.sampled_from(there["objects"]))
    field = data.draw(st.sampled_from(sorted(obj["status"])))
    before = obj["status"][field]
    obj["status"][field] = "else"
    assert compare(recorded, there) == [f"{obj['object']}: status.{field}: expected {before!r}, observed 'else'"]


@few
@given(runs(), st.data(), st.sampled_from(["lost", "reworded", "added"]))
def test_events_that_differ_are_named(run: tuple[Account, Account], data: st.DataObject, change: str) -> None:
    recorded, there = run
    at = data.draw(st.integers(0, len(there["events"]) - 1))
    event = there["events"][at]
    if change == "added":
        there["events"].append("Warning Odd Pod: never heard of")
    else:
        there["events"][at : at + 1] = [] if change == "lost" else ["Warning Odd Pod: never heard of"]
    expected = "nothing more" if change == "added" else repr(event)
    extra = "nothing more" if change == "lost" else "'Warning Odd Pod: never heard of'"
    assert compare(recorded, there) == [f"the events: expected {expected}, observed {extra}"]


@few
@given(runs(having="columns"), st.data())
def test_columns_that_differ_are_named(run: tuple[Account, Account], data: st.DataObject) -> None:
    recorded, there = run
    resource = data.draw(st.sampled_from(sorted(there["columns"])))
    row = data.draw(st.integers(0, len(there["columns"][resource]) - 1))
    before = there["columns"][resource][row]
    there["columns"][resource][row] += "?"
    assert compare(recorded, there) == [
        f"kubectl get {resource} -o wide: expected {before!r}, observed {before + '?'!r}"
    ]


@few
@given(runs(having="columns"))
def test_a_table_that_is_not_there_is_named(run: tuple[Account, Account]) -> None:
    recorded, there = run
    resource, rows = there["columns"].popitem()
    assert compare(recorded, there) == [f"kubectl get {resource} -o wide: expected {rows[0]!r}, observed no such row"]


def test_what_came_before_its_cause_comes_first() -> None:
    recorded = ACCOUNTS["01-vm-create"]
    run = observed(recorded) | {"disorder": ["the pod came before its instance"], "events": []}
    assert compare(recorded, run)[0] == "the pod came before its instance"


def test_a_watch_is_held_against_what_it_can_show() -> None:
    seen = {each["object"]: each for each in watched_part(ACCOUNTS["06-vm-delete"])["course"]}
    assert seen["VirtualMachineInstance test-vm"]["phase"] == [{"sometimes": "Succeeded"}]
    assert not any(name.startswith(("Pod ", "ControllerRevision ")) for name in seen)
    created = {each["object"]: each for each in watched_part(ACCOUNTS["01-vm-create"])["course"]}
    assert created["Pod virt-launcher-test-vm-*"] == {"object": "Pod virt-launcher-test-vm-*", "life": ["creates"]}
    assert created["VirtualMachine test-vm"]["printableStatus"] == ["Stopped", "Starting", "Running"]
    assert created["VirtualMachine test-vm"]["life"] == ["creates"]
    assert "finalizer kubevirt.io/virtualMachineControllerFinalize" not in created["VirtualMachine test-vm"]
