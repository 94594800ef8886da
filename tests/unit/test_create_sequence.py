"""What follows a create, as the audit log has them, and what becomes of the sequence without them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from virtflow.sequence.audit import Owner, Status, Write
from virtflow.sequence.create import MACHINE, observe_arrows

GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"
VIRT_CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
VIRT_HANDLER = "system:serviceaccount:kubevirt:kubevirt-handler"
START = datetime(2026, 11, 23, 10, tzinfo=UTC)
POD = "virt-launcher-vm-1-x7k2p"


def answer(uid: str, owner: str | None = None, **status: Any) -> dict[str, Any]:
    """What a write's answer says of the object."""
    return {"uid": uid, "owner": Owner(owner) if owner else None, "status": Status(**status)}


def write(user: str, verb: str, what: str, name: str, body: dict[str, Any], *, as_user: str | None = None) -> Write:
    resource, _, subresource = what.partition("/")
    return Write(START, user, as_user, verb, resource, subresource, "ns", name, 200, **body)


def at_intervals(writes: list[Write]) -> list[Write]:
    return [replace(each, at=START + timedelta(seconds=number)) for number, each in enumerate(writes)]


VM, VMI, PODS = "virtualmachines", "virtualmachineinstances", "pods"
# Title of the arrow, and its proof.
PROOFS = {
    "create VMI": write(VIRT_CONTROLLER, "create", VMI, "vm-1", answer("vmi-uid", "vm-uid", phase="Pending")),
    "create virt-launcher Pod": write(
        VIRT_CONTROLLER, "create", PODS, POD, answer("pod-uid", "vmi-uid", phase="Pending")
    ),
    "bind Pod": write("system:kube-scheduler", "create", f"{PODS}/binding", POD, {}),
    "Pod Running": write(
        "system:kwok-controller", "patch", f"{PODS}/status", POD, answer("pod-uid", "vmi-uid", phase="Running")
    ),
    "VMI Running": write(VIRT_HANDLER, "update", VMI, "vm-1", answer("vmi-uid", "vm-uid", phase="Running")),
    "VM Running and ready": write(
        VIRT_CONTROLLER,
        "update",
        f"{VM}/status",
        "vm-1",
        answer("vm-uid", printableStatus="Running", ready=True),
    ),
}
TITLES = list(PROOFS)
# Which arrow's proof says what this one's must be tied to.
TIED_TO = {
    "create virt-launcher Pod": "create VMI",
    "bind Pod": "create virt-launcher Pod",
    "Pod Running": "create virt-launcher Pod",
    "VMI Running": "create VMI",
}
# What happens on the way and proves nothing.
STEPS_BETWEEN = [
    write(VIRT_CONTROLLER, "patch", VM, "vm-1", answer("vm-uid", printableStatus="Starting")),
    write(VIRT_CONTROLLER, "update", VMI, "vm-1", answer("vmi-uid", "vm-uid", phase="Scheduling")),
    write(VIRT_HANDLER, "update", VMI, "vm-1", answer("vmi-uid", "vm-uid", phase="Scheduled")),
    write("system:kwok-controller", "patch", f"{PODS}/status", POD, answer("pod-uid", "vmi-uid", phase="Pending")),
    write(
        VIRT_CONTROLLER,
        "update",
        f"{VM}/status",
        "vm-1",
        answer("vm-uid", printableStatus="Running", ready=False),
    ),
    # Somebody else's machine, which goes the same way.
    write(GATEWAY, "create", VM, "vm-2", answer("other-vm"), as_user="system:serviceaccount:ns:tenant"),
    write(VIRT_CONTROLLER, "create", VMI, "vm-2", answer("other-vmi", "other-vm")),
    write(VIRT_CONTROLLER, "create", PODS, "virt-launcher-vm-2-aaaaa", answer("other-pod", "other-vmi")),
    write("system:kube-scheduler", "create", f"{PODS}/binding", "virt-launcher-vm-2-aaaaa", {}),
    write(
        "system:kwok-controller",
        "patch",
        f"{PODS}/status",
        "virt-launcher-vm-2-aaaaa",
        answer("other-pod", "other-vmi", phase="Running"),
    ),
    write(VIRT_HANDLER, "update", VMI, "vm-2", answer("other-vmi", "other-vm", phase="Running")),
    write(
        VIRT_CONTROLLER,
        "update",
        f"{VM}/status",
        "vm-2",
        answer("other-vm", printableStatus="Running", ready=True),
    ),
    # A machine of the same name before: another uid.
    write(GATEWAY, "create", VM, "vm-1", answer("earlier-vm"), as_user="system:serviceaccount:ns:tenant"),
    write(VIRT_CONTROLLER, "create", VMI, "vm-1", answer("earlier-vmi", "earlier-vm")),
    # The right thing done by the wrong one.
    *(replace(proof, user="system:serviceaccount:ns:tenant") for proof in PROOFS.values()),
]


def observed(writes: list[Write]) -> set[str]:
    arrows = observe_arrows(MACHINE, at_intervals(writes), {"vm": "vm-uid"})
    assert [arrow.title for arrow in arrows] == TITLES
    assert all((arrow.after is not None) == arrow.observed for arrow in arrows)
    return {arrow.title for arrow in arrows if arrow.observed}


def without(*missing: str) -> set[str]:
    """The arrows that can still be proven when these cannot."""
    left = set(TITLES) - set(missing)
    while broken := {title for title in left if TIED_TO.get(title, title) not in left}:
        left -= broken
    return left


def with_steps_between(writes: list[Write]) -> st.SearchStrategy[list[Write]]:
    """These writes in this order, with others anywhere among them."""

    def mixed(places: list[tuple[int, Write]]) -> list[Write]:
        result = list(writes)
        for place, other in places:
            result.insert(place % (len(result) + 1), other)
        return result

    return st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(STEPS_BETWEEN)), max_size=30).map(mixed)


def test_a_whole_sequence_is_observed_with_its_times() -> None:
    arrows = observe_arrows(MACHINE, at_intervals(list(PROOFS.values())), {"vm": "vm-uid"})
    assert [arrow.title for arrow in arrows if arrow.observed] == TITLES
    assert [arrow.after for arrow in arrows] == [timedelta(seconds=number) for number in range(len(TITLES))]
    assert [arrow.at for arrow in arrows] == [START + timedelta(seconds=number) for number in range(len(TITLES))]
    assert [arrow.number for arrow in arrows] == [6, 6, 8, 9, 10, 11]
    assert arrows[0].actor == VIRT_CONTROLLER


def test_nothing_is_observed_in_an_empty_log() -> None:
    assert observed([]) == set()


@given(with_steps_between(list(PROOFS.values())))
def test_what_happens_beside_a_sequence_does_not_matter(writes: list[Write]) -> None:
    assert observed(writes) == set(TITLES)


@given(st.permutations(STEPS_BETWEEN))
def test_nothing_of_it_proves_an_arrow_itself(writes: list[Write]) -> None:
    assert observed(writes) == set()


@given(st.data(), st.sets(st.sampled_from(TITLES)))
def test_missing_writes_are_missing_arrows(data: st.DataObject, dropped: set[str]) -> None:
    kept = [proof for title, proof in PROOFS.items() if title not in dropped]
    assert observed(data.draw(with_steps_between(kept))) == without(*dropped)


@given(st.data(), st.integers(0, len(TITLES) - 2))
def test_of_two_writes_in_the_wrong_order_the_later_arrow_is_missing(data: st.DataObject, first: int) -> None:
    writes = list(PROOFS.values())
    writes[first], writes[first + 1] = writes[first + 1], writes[first]
    assert observed(data.draw(with_steps_between(writes))) == without(TITLES[first + 1])


@given(st.permutations(TITLES))
def test_whatever_is_observed_is_in_the_order_of_the_sequence(order: list[str]) -> None:
    arrows = observe_arrows(MACHINE, at_intervals([PROOFS[title] for title in order]), {"vm": "vm-uid"})
    times = [arrow.after for arrow in arrows if arrow.after is not None]
    assert times == sorted(times)
    assert times[:1] == [timedelta(0)]
    places = [order.index(arrow.title) for arrow in arrows if arrow.observed]
    assert places == sorted(places)
