import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.controller.membership import adoptions, members, releases
from clusters.kubevirt.controller.selectors import format_selector, selects
from clusters.kubevirt.controller.writes import Patch
from tests.unit.patching import apply_operation
from tests.unit.virt_controller_support import deleting, make_vmi, make_vmirs
from virtflow.kube import Object

FOREIGN = {"apiVersion": "v1", "kind": "ConfigMap", "name": "mark", "uid": "mark-uid"}


def orphan(labels: dict[str, str], owners: list[Object] | None = None) -> Object:
    vmi = make_vmi("Running")
    vmi["metadata"]["labels"] = labels
    if owners is not None:
        vmi["metadata"]["ownerReferences"] = owners
    return vmi


def owned(labels: dict[str, str]) -> Object:
    vmi = make_vmi("Running", make_vmirs(1))
    vmi["metadata"]["labels"] = labels
    return vmi


def applied(patch: Patch, vmi: Object) -> bool:
    """Change the instance as the kube-apiserver would; False if it refuses to."""
    assert isinstance(patch.patch, list)
    return all(apply_operation(vmi, operation) for operation in patch.patch)


def test_an_orphan_that_is_selected_is_adopted_beside_its_other_owners() -> None:
    vmi = orphan({"app": "test", "own": "x"}, [FOREIGN])
    (patch,) = adoptions(make_vmirs(1), [vmi])
    assert applied(patch, vmi)
    assert vmi["metadata"]["ownerReferences"] == [
        FOREIGN,
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceReplicaSet",
            "name": "test-vmirs",
            "uid": "vmirs-uid",
            "controller": True,
            "blockOwnerDeletion": True,
        },
    ]


def test_nobody_adopts_a_stranger_or_what_goes_and_a_set_that_goes_claims_nobody() -> None:
    wanted, stranger = orphan({"app": "test"}), orphan({"app": "other"})
    assert adoptions(make_vmirs(1), [stranger, deleting(wanted)]) == []
    assert adoptions(deleting(make_vmirs(1)), [wanted]) == []
    assert releases(deleting(make_vmirs(1)), [owned({"app": "other"})]) == []


def test_a_member_that_is_not_selected_any_more_is_released_and_counts_no_more() -> None:
    stays, leaves = owned({"app": "test"}), owned({"app": "other"})
    leaves["metadata"]["ownerReferences"].append(FOREIGN)
    (patch,) = releases(make_vmirs(1), [stays, leaves])
    assert members(make_vmirs(1), [stays, leaves]) == [stays]
    assert applied(patch, leaves)
    assert leaves["metadata"]["ownerReferences"] == [FOREIGN]


def test_of_two_sets_only_the_quicker_one_gets_an_orphan() -> None:
    vmi = orphan({"app": "test"})
    (first,) = adoptions(make_vmirs(1, "first", "first-uid"), [vmi])
    (second,) = adoptions(make_vmirs(1, "second", "second-uid"), [vmi])
    assert applied(first, vmi)
    assert not applied(second, vmi)
    assert [owner["uid"] for owner in vmi["metadata"]["ownerReferences"]] == ["first-uid"]


def expression(operator: str, *values: str) -> Object:
    return {"matchExpressions": [{"key": "k", "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "text", "selected", "not_selected"),
    [
        ({"matchLabels": {"b": "2", "a": "1"}}, "a=1,b=2", {"a": "1", "b": "2", "c": "3"}, {"a": "1"}),
        (expression("In", "y", "x"), "k in (x,y)", {"k": "x"}, {}),
        (expression("NotIn", "x"), "k notin (x)", {}, {"k": "x"}),
        (expression("Exists"), "k", {"k": ""}, {}),
        (expression("DoesNotExist"), "!k", {}, {"k": "x"}),
        ({"matchLabels": {"z": "1"}, **expression("DoesNotExist")}, "!k,z=1", {"z": "1"}, {"z": "1", "k": "1"}),
        (expression("Like", "x"), "", None, {"k": "x"}),
    ],
)
def test_a_selector_as_text_and_whom_it_selects(
    selector: Object, text: str, selected: dict[str, str] | None, not_selected: dict[str, str]
) -> None:
    assert format_selector(selector) == text
    assert selected is None or selects(selector, {"metadata": {"labels": selected}})
    assert not selects(selector, {"metadata": {"labels": not_selected}})


@given(labels=st.dictionaries(st.text(), st.text(), max_size=3))
def test_a_selector_without_wishes_selects_everybody(labels: dict[str, str]) -> None:
    assert selects({}, {"metadata": {"labels": labels}})
    assert selects({}, {"metadata": {}})
