"""A machine that comes back: the end of its launcher, and then a start of the same machine."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from activities.evidence import Evidence
from tests.unit.kube_support import client_of
from virtflow.sequence.audit import Owner, Status, Write
from virtflow.sequence.records import Records
from virtflow.sequence.recovery import observe_recovery
from workflows.fault_models import Instance, RecoveryEvidence
from workflows.models import VirtualMachineRef

MACHINE, BEFORE = VirtualMachineRef("ns", "vm", "vm-uid"), Instance("vmi-1", "node-1")
CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
HANDLER = "system:serviceaccount:kubevirt:kubevirt-handler"
NODE_CONTROLLER = "system:serviceaccount:kube-system:node-controller"
KUBELET, SCHEDULER = "system:kwok-controller", "system:kube-scheduler"
START = datetime(2026, 11, 23, 10, tzinfo=UTC)


def write(
    user: str, verb: str, what: str, name: str, uid: str = "", owner: str = "", status: Status | None = None
) -> Write:
    resource, _, subresource = what.partition("/")
    controller = Owner(owner, controller=True) if owner else None
    return Write(
        START,
        user,
        None,
        verb,
        resource,
        subresource,
        "ns",
        name,
        200,
        uid=uid,
        owner=controller,
        status=status or Status(),
    )


def life(number: int) -> list[Write]:
    """All that is written when the machine starts for the so-many-th time."""
    vmi, pod = f"vmi-{number}", f"pod-{number}"
    return [
        write(CONTROLLER, "create", "virtualmachineinstances", "vm", vmi, "vm-uid"),
        write(CONTROLLER, "create", "pods", pod, pod, vmi),
        write(SCHEDULER, "create", "pods/binding", pod),
        write(KUBELET, "patch", "pods/status", pod, pod, vmi, Status(phase="Running")),
        write(HANDLER, "update", "virtualmachineinstances", "vm", vmi, "vm-uid", Status(phase="Running")),
        write(
            CONTROLLER,
            "update",
            "virtualmachines/status",
            "vm",
            "vm-uid",
            status=Status(printableStatus="Running", ready=True),
        ),
    ]


def end(number: int, user: str = NODE_CONTROLLER) -> Write:
    return write(user, "delete", "pods", f"pod-{number}", f"pod-{number}", f"vmi-{number}")


def in_order(writes: list[Write]) -> list[Write]:
    return [replace(each, at=START + timedelta(seconds=number)) for number, each in enumerate(writes)]


WHOLE = [*life(1), end(1), end(1, KUBELET), *life(2)]


@pytest.mark.parametrize("user", [NODE_CONTROLLER, "an-administrator"])
def test_a_recovery_is_observed_from_the_launchers_end(user: str) -> None:
    arrows = observe_recovery(MACHINE, BEFORE, user, in_order([*life(1), end(1, user), end(1, KUBELET), *life(2)]))
    assert [arrow.number for arrow in arrows] == [0, 6, 6, 8, 9, 10, 11]
    assert arrows[0].actor == user
    assert all(arrow.observed for arrow in arrows)
    # The first life, and the end itself, take seven seconds before; the kubelet's delete comes between.
    assert [arrow.after for arrow in arrows] == [timedelta(seconds=number) for number in (0, 2, 3, 4, 5, 6, 7)]


def test_a_launcher_that_another_ended_first_is_not_on_record() -> None:
    writes = in_order([*life(1), end(1, "an-administrator"), end(1), *life(2)])
    first, *rest = observe_recovery(MACHINE, BEFORE, NODE_CONTROLLER, writes)
    assert (first.actor, first.observed) == (NODE_CONTROLLER, False)
    assert all(arrow.observed for arrow in rest)


def test_a_start_before_the_end_is_no_recovery() -> None:
    arrows = observe_recovery(MACHINE, BEFORE, NODE_CONTROLLER, in_order([*life(1), end(1)]))
    assert [arrow.observed for arrow in arrows] == [True] + 6 * [False]


def test_without_the_end_it_is_not_on_record() -> None:
    arrows = observe_recovery(MACHINE, BEFORE, NODE_CONTROLLER, in_order([*life(1), *life(2), end(2)]))
    assert not arrows[0].observed


@given(st.integers(0, len(WHOLE) - 1))
def test_each_write_of_it_is_needed(missing: int) -> None:
    """Of the first life nothing is, and of the two ends the first."""
    writes = in_order([each for number, each in enumerate(WHOLE) if number != missing])
    arrows = observe_recovery(MACHINE, BEFORE, NODE_CONTROLLER, writes)
    is_whole = all(arrow.observed for arrow in arrows)
    assert is_whole == (missing < len(life(1)) or missing == WHOLE.index(end(1, KUBELET)))


class Written(Records):
    """Has these writes on record, whatever is asked for."""

    def __init__(self, writes: list[Write]) -> None:
        self._writes = writes

    async def catch_up(self) -> None:
        pass

    def of_machine(self, namespace: str, name: str, review_ids: Collection[str] = ()) -> list[Write]:
        return self._writes


@pytest.mark.anyio
@pytest.mark.parametrize(("node_failed", "user"), [(True, NODE_CONTROLLER), (False, "an-administrator")])
async def test_a_node_that_fails_has_its_controller_end_the_launcher_and_else_it_is_ourselves(
    tmp_path: Path, node_failed: bool, user: str
) -> None:
    async def own_user(request: web.Request) -> web.StreamResponse:
        assert (request.method, request.path) == ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews")
        return web.json_response({"status": {"userInfo": {"username": "an-administrator"}}}, status=201)

    records = Written(in_order([*life(1), end(1, user), *life(2)]))
    async with client_of(own_user, tmp_path) as kube:
        arrows = await Evidence(kube, records).observe_recovery(RecoveryEvidence(MACHINE, BEFORE, node_failed))
    assert arrows[0].actor == user
    assert all(arrow.observed for arrow in arrows)
