"""Steps about quotas and limits: what a tenant at its limit is told, and what its neighbour notices."""

import math
from datetime import timedelta
from typing import TYPE_CHECKING

import yaml
from pytest_bdd import given, then, when

from tests.e2e.phrases import Manifest, phrase
from tests.e2e.steps.autoscaling import tell_interruption
from tests.e2e.steps.world import LOAD_RAMP, MANIFESTS, MILLISECOND, World
from workflows.models import GatewayRequest, LoadOrder, Verb, VirtualMachineRef, VirtualMachineWait
from workflows.quota_models import PressOrder, ReasonWait, TriesWait
from workflows.scenario import Scenario

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report

TOLD_WITHIN = timedelta(seconds=60)
STUCK_WITHIN = timedelta(minutes=3)
KEPT_FROM_RUNNING = (("Synchronized", "False"), ("Failure", "True"))
"""Conditions of a virtual machine whose instance, or whose instance's pod, was refused."""
FIRST_BACKOFF = timedelta(milliseconds=10)
"""virt-controller's first pause; each is twice the one before."""
TRIES_BY_CHANGES = 8
"""Tries that a change of the machine brings at once, beside those that come by themselves."""
JUDGED_OVER, JUDGED_WITHIN = timedelta(seconds=5), timedelta(seconds=60)
"""A machine's tries are judged when they have so long a time, of which pauses that double leave ten tries."""
SHORTEST = timedelta(seconds=1)
"""What a machine takes counts at least as this much: a moment's stall is no slowness."""


@when(phrase('"{tenant:Name}" asks for the virtual machine "{name:Name}" of "{manifest:Manifest}"'))
def ask_for_machine(session: "Session", world: World, tenant: str, name: str, manifest: Manifest) -> None:
    """Without waiting for it to run."""
    body = yaml.load((MANIFESTS / manifest).read_text(), Loader=yaml.CSafeLoader)
    body["metadata"]["name"] = name
    request = GatewayRequest(world.tenant(tenant), Verb.CREATE, manifest=yaml.safe_dump(body), labels=session.labels)
    answer = world.answer = session.ask(Scenario.request_gateway, request)
    if answer.code == 201:
        meta = answer.body["metadata"]
        world.machines[name] = VirtualMachineRef(meta["namespace"], name, meta["uid"])


@given(phrase('"{tenant:Name}" waits for the virtual machine "{name:Name}" of "{manifest:Manifest}", over its quota'))
def a_waiting_machine(session: "Session", world: World, tenant: str, name: str, manifest: Manifest) -> None:
    ask_for_machine(session, world, tenant, name, manifest)
    assert world.last_answer().code == 201, world.last_answer().message
    session.ask(Scenario.await_reason, ReasonWait(world.machines[name], "exceeded quota", TOLD_WITHIN))


@given(phrase('"{tenant:Name}" waits for {number:d} virtual machines of "{manifest:Manifest}", over its quota'))
def waiting_machines(session: "Session", world: World, tenant: str, number: int, manifest: Manifest) -> None:
    for each in range(1, number + 1):
        a_waiting_machine(session, world, tenant, f"waiting-{each}", manifest)


@then(phrase('the virtual machine "{name:Name}" tells "{tenant:Name}" "{words}"'))
def machine_tells(session: "Session", report: "Report", world: World, name: str, tenant: str, words: str) -> None:
    machine = world.machines[name]
    # The platform waits, and then the tenant reads for itself.
    session.ask(Scenario.await_reason, ReasonWait(machine, words, TOLD_WITHIN))
    answer = session.ask(Scenario.request_gateway, GatewayRequest(world.tenant(tenant), Verb.GET, name=name))
    assert answer.code == 200, f"The gateway answered {answer.code}: {answer.message}"
    status = answer.body["status"]
    said = [condition for condition in status["conditions"] if words in condition.get("message", "")]
    assert said, f"{tenant} does not read so. It reads {status}"
    report.note(f"{status.get('printableStatus')}, {said[0]['type']}={said[0]['status']} {said[0].get('reason')}:")
    report.note(said[0]["message"])


@then(phrase('the virtual machine "{name:Name}" does not run'))
def machine_does_not_run(session: "Session", report: "Report", world: World, name: str) -> None:
    """One look would be too early for any machine: it must also say that it was kept from running."""
    machine = world.machines[name]
    (tenant,) = [each for each in world.tenants.values() if each.namespace == machine.namespace]
    answer = session.ask(Scenario.request_gateway, GatewayRequest(tenant, Verb.GET, name=name))
    status = answer.body["status"]
    assert not status.get("ready"), f"It is ready: {status}"
    assert status["printableStatus"] != "Running", f"It runs: {status}"
    why = [each for each in status["conditions"] if (each["type"], each["status"]) in KEPT_FROM_RUNNING]
    assert why, f"It may only not run yet. Nothing says what keeps it from running: {status}"
    report.note(f"{why[0]['type']}={why[0]['status']} {why[0].get('reason')}")


@then(phrase('the virtual machine "{name:Name}" runs within {seconds:d} seconds'))
def machine_runs(session: "Session", report: "Report", world: World, name: str, seconds: int) -> None:
    wait = VirtualMachineWait(world.machines[name], timedelta(seconds=seconds))
    state = session.ask(Scenario.await_running, wait)
    assert (state.printable_status, state.phase) == ("Running", "Running"), state
    report.note(f"{state.phase} on {state.node}")


@then(phrase('the launcher of the virtual machine has the {resource:w} limit "{amount:Name}"'))
def launcher_has_limit(session: "Session", world: World, resource: str, amount: str) -> None:
    created = world.created
    assert created is not None, "No virtual machine was created before this step."
    assert created.machine is not None, f"It was refused: {created.answer.message}"
    limits = session.ask(Scenario.read_launcher_limits, created.machine)
    assert limits.get(resource.lower()) == amount, f"Its limits are {limits}."


@then(phrase('virt-controller tries seldom, and ever more seldom, what the quota of "{tenant:Name}" refuses'))
def tries_are_backed_off(session: "Session", report: "Report", world: World, tenant: str) -> None:
    """By counts of each machine's tries: as many as pauses that double fit into their time, and ever fewer."""
    namespace = world.tenant(tenant).namespace
    waiting = sum(machine.namespace == namespace for machine in world.machines.values())
    wait = TriesWait(namespace, waiting, JUDGED_OVER, JUDGED_WITHIN)
    every = session.ask(Scenario.observe_tries, wait)
    for tries in every:
        report.note(f"{tries.launcher}: {len(tries.moments)} refused tries in {tries.span.total_seconds():.1f} s")
    assert len(every) == waiting > 0, f"{waiting} wait, and the audit log holds tries of {len(every)}."
    for tries in every:
        assert tries.span >= JUDGED_OVER, f"{tries.launcher}: all within {tries.span}, too short to be judged."
        most = math.ceil(math.log2(tries.span / FIRST_BACKOFF)) + TRIES_BY_CHANGES
        assert len(tries.moments) <= most, f"{tries.launcher}: pauses that double allow at most {most}."
        assert tries.pauses_grow, f"{tries.launcher}: its pauses do not grow: {tries.moments}"


@then(phrase('it has taken at most {times:d} times as long as the virtual machine of "{tenant:Name}"'))
def takes_not_much_longer(report: "Report", world: World, times: int, tenant: str) -> None:
    """From the create to Running, by the audit log's clock."""
    assert tenant in world.running, f"{tenant} has no machine that was made to run before this step."
    assert world.created is not None, "No virtual machine was created before this step."
    before, after = world.running[tenant].took, world.created.took
    assert before is not None, "The audit log holds no write that says that machine was running."
    assert after is not None, "The audit log holds no write that says this machine was running."
    report.note(f"{after / MILLISECOND:.0f} ms, and {before / MILLISECOND:.0f} ms before")
    most = times * max(before, SHORTEST)
    assert after <= most, f"It took {after.total_seconds():.1f} s, the other {before.total_seconds():.1f} s."


@when(phrase("{users:d} users send {rate:g} request a second each until the autoscaler is stuck"))
def load_until_stuck(session: "Session", report: "Report", world: World, users: int, rate: float) -> None:
    target = world.replica_set
    assert target is not None, "No replica set was made before this step."
    load = LoadOrder(target, users, LOAD_RAMP, STUCK_WITHIN, rate)
    world.pressed = session.ask(Scenario.press_autoscaler, PressOrder(target, load, STUCK_WITHIN))
    tell_interruption(report, world.pressed.load)


@then(phrase("it wants more than the {granted:d} virtual machines that the quota lets run"))
def wants_more(report: "Report", world: World, granted: int) -> None:
    assert world.pressed is not None, "No load was applied before this step."
    strain = world.pressed.strain
    report.note(f"desired {strain.desired}, there {strain.current}, ready {strain.ready}")
    assert strain.desired > granted, f"It wants {strain.desired}."
    assert strain.ready == granted, f"{strain.ready} are ready."


@then(phrase('it says why: "{words}"'))
def says_why(report: "Report", world: World, words: str) -> None:
    assert world.pressed is not None, "No load was applied before this step."
    reasons = world.pressed.strain.reasons
    for reason in reasons:
        report.note(reason)
    assert any(words in reason for reason in reasons), f"Nobody says so: {'; '.join(reasons) or 'nothing'}"
    assert any(reason.startswith("quota ") for reason in reasons), "The quota's own figures are missing."
