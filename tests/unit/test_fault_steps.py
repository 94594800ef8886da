"""Steps about faults, with a session that answers at once: what they let pass, and what they leave behind."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tests.e2e.conftest import Session
from tests.e2e.report import Report
from tests.e2e.steps import faults
from tests.e2e.steps.world import World
from virtflow.errors import InfrastructureError, SloMissedError, VirtflowError
from workflows.fault_models import Instance, NodeFault, Outage, OutageEnded, OutageRecord, Recovery
from workflows.models import GatewayAnswer, ObservedArrow, ScenarioOrder, VirtualMachineCreated, VirtualMachineRef
from workflows.tenant_models import Tenant

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
MACHINE = VirtualMachineRef("tenant-a-1", "test-vm", "u1")
LABELS = {"virtflow.io/scenario": "12345678"}
FAULT = NodeFault("node-1", "failed by 12345678")
OUTAGE = Outage("kube-apiserver", timedelta(seconds=20))
ENDED = OutageEnded(START, START + timedelta(seconds=20))


class Answering(Session):
    """Answers by the update's name, and notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self._order = ScenarioOrder("r", "f", "s", LABELS, timedelta(minutes=1))
        self._answers = answers
        self.asked: list[tuple[str, Any]] = []

    def ask(self, update: Any, order: Any) -> Any:
        self.asked.append((update.__name__, order))
        answer = self._answers.get(update.__name__)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def world(**known: Any) -> World:
    created = VirtualMachineCreated(GatewayAnswer(201, {}, [], "id"), MACHINE)
    return World(tenants={"tenant-a": Tenant("tenant-a", "tenant-a-1", ["user"])}, created=created, **known)


def recovery(node: str, after: timedelta | None) -> Recovery:
    """On this node, so long after the end of the launcher."""
    end = ObservedArrow(0, "delete virt-launcher Pod", "somebody", observed=True, after=timedelta())
    last = ObservedArrow(11, "VM Running and ready", "virt-controller", observed=after is not None, after=after)
    return Recovery(Instance("vmi-2", node), [end, last])


def report() -> Report:
    return Report("r", None)


def torn_down(session: Session, broken: faults.Broken, ended: pytest.ExitCode = pytest.ExitCode.OK) -> None:
    """As pytest does it with the fixture of the steps."""
    fixture: Callable[..., Any] = faults.broken.__wrapped__  # type: ignore[attr-defined]
    request = SimpleNamespace(session=SimpleNamespace(exitstatus=ended))
    running = fixture(request, session)
    next(running).extend(broken)
    assert next(running, None) is None


def test_what_was_broken_is_whole_again_before_the_next_scenario_last_first() -> None:
    session = Answering(await_back=ENDED)
    torn_down(session, [FAULT, OUTAGE])
    assert session.asked == [("await_back", OUTAGE), ("mend_node", FAULT)]


def test_a_node_is_mended_also_if_its_failure_failed() -> None:
    session = Answering(read_instance=Instance("vmi-1", "node-1"), fail_node=AssertionError("no"))
    broken: faults.Broken = []
    with pytest.raises(AssertionError, match="no"):
        faults.node_fails(session, world(), broken, "node-1")
    assert broken == [FAULT]


def test_a_program_is_awaited_also_if_nobody_saw_it_away() -> None:
    broken: faults.Broken = []
    with pytest.raises(InfrastructureError):
        faults.program_is_gone(Answering(take_down=InfrastructureError("no")), broken, "kube-apiserver", 20)
    assert broken == [OUTAGE]


def test_what_was_never_taken_down_need_not_come_back() -> None:
    session = Answering(await_back=VirtflowError("No kube-apiserver is kept by this cluster's own supervisor"))
    torn_down(session, [FAULT, OUTAGE])
    assert session.asked == [("await_back", OUTAGE), ("mend_node", FAULT)]


def test_what_does_not_come_back_is_told_when_all_else_is_mended() -> None:
    session = Answering(await_back=InfrastructureError("it does not answer"))
    with pytest.raises(InfrastructureError, match="it does not answer"):
        torn_down(session, [FAULT, OUTAGE])
    assert session.asked == [("await_back", OUTAGE), ("mend_node", FAULT)]


def test_of_those_that_cannot_be_mended_the_first_is_told() -> None:
    session = Answering(await_back=InfrastructureError("no answer"), mend_node=InfrastructureError("not well"))
    with pytest.raises(InfrastructureError, match="no answer"):
        torn_down(session, [FAULT, OUTAGE])
    assert session.asked == [("await_back", OUTAGE), ("mend_node", FAULT)]


def test_who_interrupts_the_run_waits_for_no_outages_end() -> None:
    """The session's end, which comes next, undoes it at once."""
    session = Answering()
    torn_down(session, [FAULT, OUTAGE], pytest.ExitCode.INTERRUPTED)
    assert session.asked == []


def test_nor_does_who_interrupts_the_wait_itself() -> None:
    session = Answering(await_back=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        torn_down(session, [FAULT, OUTAGE])
    assert session.asked == [("await_back", OUTAGE)]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("node-1", "node-2", ""),
        ("node-3", "node-2", "ran on node-3, which has not failed"),
        ("node-1", "node-1", "It runs on node-1, which has failed"),
    ],
)
def test_another_node_is_neither_one_that_failed_nor_counts_where_none_did(
    before: str, after: str, words: str
) -> None:
    session = Answering(await_recovery=recovery(after, timedelta(seconds=60)))
    now = world(before=Instance("vmi-1", before))
    if words:
        with pytest.raises(AssertionError, match=words):
            faults.runs_elsewhere(session, report(), now, [FAULT], 60)
    else:
        faults.runs_elsewhere(session, report(), now, [FAULT], 60)
        assert now.recovery is not None


def test_who_waits_too_late_for_a_recovery_is_told_how_long_it_took() -> None:
    session = Answering(await_recovery=recovery("node-1", timedelta(seconds=60.1)))
    now = world(before=Instance("vmi-1", "node-1"))
    with pytest.raises(
        SloMissedError, match=r"60\.1 s after the end of its launcher pod, not within 60 s\. 60\.1 s of"
    ):
        faults.runs_again(session, report(), now, 60)
    session = Answering(await_recovery=recovery("node-1", None))
    with pytest.raises(AssertionError, match="audit log holds no write"):
        faults.runs_again(session, report(), now, 60)


def test_a_recovery_is_looked_for_by_what_was_done_last() -> None:
    session = Answering(
        read_instance=Instance("vmi-1", "node-1"), await_recovery=recovery("node-2", timedelta(seconds=1))
    )
    now, broken = world(), list[NodeFault | Outage]()
    faults.node_of_the_machine_fails(session, now, broken)
    faults.runs_elsewhere(session, report(), now, broken, 60)
    faults.launcher_is_killed(session, now)
    faults.runs_again(session, report(), now, 60)
    waits = [order for update, order in session.asked if update == "await_recovery"]
    assert [wait.node_failed for wait in waits] == [True, False]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (OutageRecord(["test-vm"], 0), ""),
        (OutageRecord(["test-vm", "test-vm"], 0), "has 2 that succeeded"),
        (OutageRecord([], 0), "has 0 that succeeded"),
        (OutageRecord(["test-vm"], 1), "has 1 writes to tenant-a-1 meanwhile"),
    ],
)
def test_a_machine_is_created_once_and_not_while_nobody_answered(record: OutageRecord, words: str) -> None:
    session = Answering(observe_outage=record)
    if words:
        with pytest.raises(AssertionError, match=words):
            faults.created_once(session, report(), world(outage=ENDED), "tenant-a", 1)
    else:
        faults.created_once(session, report(), world(outage=ENDED), "tenant-a", 1)


def test_a_step_that_comes_too_early_says_what_is_missing() -> None:
    session = Answering()
    with pytest.raises(AssertionError, match="Nothing has happened to the virtual machine"):
        faults.runs_again(session, report(), world(), 60)
    with pytest.raises(AssertionError, match="kube-apiserver was not gone before"):
        faults.program_answers(session, report(), world(), [FAULT], "kube-apiserver")
    with pytest.raises(AssertionError, match="Nothing was gone"):
        faults.created_once(session, report(), world(), "tenant-a", 1)
    with pytest.raises(AssertionError, match="node-2 has not failed"):
        faults.node_is_well(session, [FAULT], "node-2")
    assert session.asked == []
