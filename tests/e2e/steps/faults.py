"""Steps that make something fail, and about what comes back by itself."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from pytest_bdd import then, when

from tests.e2e.phrases import phrase
from tests.e2e.steps.machines import arrows_observed, slowest
from tests.e2e.steps.world import World
from virtflow.errors import SloMissedError, VirtflowError
from workflows.fault_models import LauncherKill, NodeFault, Outage, OutageEvidence, RecoveryWait
from workflows.labels import SCENARIO
from workflows.models import ReplicasWait
from workflows.quota_models import StuckWait
from workflows.scenario import Scenario

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report

QUOTA_FILLS_WITHIN = timedelta(minutes=2)

Broken = list[NodeFault | Outage]


@pytest.fixture
def broken(request: pytest.FixtureRequest, session: "Session") -> Iterator[Broken]:
    """What the scenario makes fail. It is whole again before the next begins: nodes and programs are everybody's."""
    broken: Broken = []
    yield broken
    if request.session.exitstatus == pytest.ExitCode.INTERRUPTED:
        # No scenario comes next, and the session's end undoes at once what an outage would yet last.
        return
    problems = []
    for fault in reversed(broken):
        try:
            mend(session, fault)
        except Exception as error:  # one that cannot be mended keeps none of the others from it
            problems.append(error)
    if problems:
        raise problems[0]


def mend(session: "Session", fault: NodeFault | Outage) -> None:
    match fault:
        case NodeFault():
            session.ask(Scenario.mend_node, fault)
        case Outage():
            try:
                session.ask(Scenario.await_back, fault)
            except VirtflowError as error:
                # A plain one is a refusal: nothing was taken down, as the step that was to do it has told.
                if type(error) is not VirtflowError:
                    raise


@when(phrase('the node "{node:Name}" fails'))
def node_fails(session: "Session", world: World, broken: Broken, node: str) -> None:
    if world.created and world.created.machine:
        world.before = session.ask(Scenario.read_instance, world.created.machine)
        world.node_failed = True
    fault = NodeFault(node, f"failed by {session.labels[SCENARIO]}")
    broken.append(fault)
    session.ask(Scenario.fail_node, fault)


@when("the node of the virtual machine fails")
def node_of_the_machine_fails(session: "Session", world: World, broken: Broken) -> None:
    node_fails(session, world, broken, session.ask(Scenario.read_instance, world.machine()).node)


@when(phrase('the node "{node:Name}" is well again'))
def node_is_well(session: "Session", broken: Broken, node: str) -> None:
    fault = next((fault for fault in broken if isinstance(fault, NodeFault) and fault.node == node), None)
    assert fault is not None, f"{node} has not failed before this step."
    session.ask(Scenario.mend_node, fault)


@when("the launcher pod of the virtual machine is killed")
def launcher_is_killed(session: "Session", world: World) -> None:
    world.before = session.ask(Scenario.read_instance, world.machine())
    world.node_failed = False
    session.ask(Scenario.kill_launcher, LauncherKill(world.machine(), world.before))


@when(phrase("the {program:Program} is gone for {seconds:d} seconds"))
def program_is_gone(session: "Session", broken: Broken, program: str, seconds: int) -> None:
    """Returns when it is away: the steps that follow are done meanwhile."""
    outage = Outage(program, timedelta(seconds=seconds))
    broken.append(outage)
    session.ask(Scenario.take_down, outage)


@when("the quota fills while the replica set scales")
def quota_fills(session: "Session", world: World) -> None:
    assert world.replica_set is not None, "No replica set was made before this step."
    world.strain = session.ask(Scenario.await_stuck, StuckWait(world.replica_set, QUOTA_FILLS_WITHIN))


@then(phrase("the virtual machine runs again within {seconds:d} seconds"))
def runs_again(session: "Session", report: "Report", world: World, seconds: int) -> None:
    """The time is counted by the audit log, from the end of its launcher pod: what comes before is the fault's."""
    before = world.before
    assert before is not None, "Nothing has happened to the virtual machine before this step."
    wait = RecoveryWait(world.machine(), before, timedelta(seconds=seconds), world.node_failed)
    recovery = world.recovery = session.ask(Scenario.await_recovery, wait)
    took = recovery.took
    assert took is not None, "The audit log holds no write that says the virtual machine is running again."
    if took > timedelta(seconds=seconds):
        raise SloMissedError(
            f"It runs again {took.total_seconds():.1f} s after the end of its launcher pod, not within {seconds} s. "
            f"{slowest(recovery.arrows)}"
        )
    report.note(f"on {recovery.instance.node}, and on {before.node} before")


@then(phrase("the virtual machine runs on another node within {seconds:d} seconds"))
def runs_elsewhere(session: "Session", report: "Report", world: World, broken: Broken, seconds: int) -> None:
    assert world.before is not None, "No node has failed before this step."
    failed = [fault.node for fault in broken if isinstance(fault, NodeFault)]
    assert world.before.node in failed, (
        f"The virtual machine ran on {world.before.node}, which has not failed. A manifest's nodeAffinity says where "
        f"it runs; or write When the node of the virtual machine fails."
    )
    runs_again(session, report, world, seconds)
    assert world.recovery is not None
    assert world.recovery.instance.node not in failed, f"It runs on {world.recovery.instance.node}, which has failed."


@then("each arrow of its recovery is on record, by its own actor and in order")
def recovery_observed(report: "Report", world: World) -> None:
    assert world.recovery is not None, "No virtual machine was seen to run again before this step."
    arrows_observed(report, world.recovery.arrows)


@then(phrase("the {program:Program} answers again"))
def program_answers(session: "Session", report: "Report", world: World, broken: Broken, program: str) -> None:
    outages = [fault for fault in broken if isinstance(fault, Outage) and fault.program == program]
    assert outages, f"The {program} was not gone before this step."
    ended = world.outage = session.ask(Scenario.await_back, outages[-1])
    report.note(f"it was gone for {(ended.back_at - ended.gone_at).total_seconds():.1f} s")


@then(phrase('"{tenant:Name}" has created {number:d} virtual machine, and nothing was written while it was gone'))
def created_once(session: "Session", report: "Report", world: World, tenant: str, number: int) -> None:
    """By the audit log."""
    assert world.outage is not None, "Nothing was gone, and answers again, before this step."
    namespace = world.tenant(tenant).namespace
    record = session.ask(Scenario.observe_outage, OutageEvidence(namespace, world.outage))
    report.note(f"created, by the audit log: {', '.join(record.created) or 'nothing'}")
    assert len(record.created) == number, f"The audit log has {len(record.created)} that succeeded."
    assert record.meanwhile == 0, f"The audit log has {record.meanwhile} writes to {namespace} meanwhile."


@then(phrase("{number:d} virtual machines of the replica set are ready within {seconds:d} seconds"))
def replicas_are_ready(session: "Session", report: "Report", world: World, number: int, seconds: int) -> None:
    assert world.replica_set is not None, "No replica set was made before this step."
    wait = ReplicasWait(world.replica_set, number, timedelta(seconds=seconds))
    state = session.ask(Scenario.await_replicas, wait)
    report.note(f"desired {state.desired}, there {state.replicas}, ready {state.ready}")
