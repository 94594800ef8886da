"""The steps a feature can use. They read like the feature; the work is the workflow's."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pytest_bdd import given, then, when

from tests.e2e.phrases import Manifest, phrase
from virtflow.sequence.scale import TOLERANCE
from workflows.access_models import AccessMatrix, DoorAnswer
from workflows.models import (
    Autoscaled,
    AutoscaleOrder,
    Bearer,
    GatewayAnswer,
    GatewayRequest,
    LoadOrder,
    ReplicaSetOrder,
    ReplicaSetRef,
    Verb,
    VirtualMachineCreated,
    VirtualMachineOrder,
)
from workflows.scenario import Scenario
from workflows.tenant_models import Tenant, TenantOrder

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report

MANIFESTS = Path(__file__).parents[2] / "features" / "manifests"
RUNNING_WITHIN = timedelta(seconds=60)
LOAD_RAMP = timedelta(seconds=5)
SETTLED_WITHIN = timedelta(minutes=5)
SCALED_IN_WITHIN = timedelta(minutes=5)
MILLISECOND = timedelta(milliseconds=1)


@dataclass
class World:
    """What the steps of one scenario tell each other."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    answer: GatewayAnswer | None = None
    created: VirtualMachineCreated | None = None
    replica_set: ReplicaSetRef | None = None
    autoscaled: Autoscaled | None = None
    matrix: AccessMatrix | None = None
    door_answer: DoorAnswer | None = None

    def tenant(self, name: str) -> Tenant:
        assert name in self.tenants, (
            f'There is no tenant "{name}" yet: write Given the tenant "{name}" before this step.'
        )
        return self.tenants[name]

    def last_answer(self) -> GatewayAnswer:
        assert self.answer is not None, "No request was made to the gateway before this step."
        return self.answer

    def last_matrix(self) -> AccessMatrix:
        assert self.matrix is not None, "Nobody tried every request before this step."
        return self.matrix

    def last_door_answer(self) -> DoorAnswer:
        assert self.door_answer is not None, "Nobody tried a request at a door before this step."
        return self.door_answer

    def last_autoscaled(self) -> Autoscaled:
        assert self.autoscaled is not None, "No load was applied before this step."
        return self.autoscaled


@pytest.fixture
def world() -> World:
    return World()


@given(phrase('the tenant "{name:Name}"'))
def a_tenant(session: "Session", world: World, name: str) -> None:
    order = TenantOrder(name, session.namespace_of(name), session.labels)
    world.tenants[name] = session.ask(Scenario.create_tenant, order)


@given(phrase('"{tenant:Name}" has the running virtual machine of "{manifest:Manifest}"'))
def a_running_virtual_machine(session: "Session", world: World, tenant: str, manifest: Manifest) -> None:
    create_virtual_machine(session, world, tenant, manifest)
    assert world.last_answer().code == 201, world.last_answer().message


@when(phrase('"{tenant:Name}" creates the virtual machine of "{manifest:Manifest}"'))
def create_virtual_machine(session: "Session", world: World, tenant: str, manifest: Manifest) -> None:
    order = VirtualMachineOrder(
        world.tenant(tenant), (MANIFESTS / manifest).read_text(), session.labels, RUNNING_WITHIN
    )
    world.created = session.ask(Scenario.create_virtual_machine, order)
    world.answer = world.created.answer


@when(
    phrase('"{tenant:Name}" creates the virtual machine of "{manifest:Manifest}" in the namespace of "{other:Name}"')
)
def create_elsewhere(session: "Session", world: World, tenant: str, manifest: Manifest, other: str) -> None:
    request = GatewayRequest(
        world.tenant(tenant),
        Verb.CREATE,
        manifest=(MANIFESTS / manifest).read_text(),
        namespace=world.tenant(other).namespace,
        labels=session.labels,
    )
    world.answer = session.ask(Scenario.request_gateway, request)


@when(phrase('somebody lists the virtual machines of "{tenant:Name}" with a token that nobody issued'))
def list_with_nobodys_token(session: "Session", world: World, tenant: str) -> None:
    request = GatewayRequest(world.tenant(tenant), Verb.LIST, bearer=Bearer.NOBODY)
    world.answer = session.ask(Scenario.request_gateway, request)


@when(phrase('"{tenant:Name}" deletes the virtual machine "{name:Name}"'))
def delete_virtual_machine(session: "Session", world: World, tenant: str, name: str) -> None:
    request = GatewayRequest(world.tenant(tenant), Verb.DELETE, name=name)
    world.answer = session.ask(Scenario.request_gateway, request)


@then(phrase("the gateway answers {code:d}"))
def gateway_answers(world: World, code: int) -> None:
    answer = world.last_answer()
    said = answer.message or "it says no more"
    assert answer.code == code, f"The gateway answered {answer.code}, not {code}: {said}."


@then(phrase('the gateway answers {code:d} "{reason:Name}"'))
def gateway_answers_reason(world: World, code: int, reason: str) -> None:
    gateway_answers(world, code)
    answer = world.last_answer()
    assert answer.reason == reason, f"The gateway's reason is {answer.reason!r}, not {reason!r}: {answer.message}"


@then(phrase('the answer says "{words}"'))
def answer_says(world: World, words: str) -> None:
    message = world.last_answer().message
    assert words in message, f"The answer does not say so. It says: {message}"


@then(phrase('the answer warns "{words}"'))
def answer_warns(world: World, words: str) -> None:
    warnings = world.last_answer().warnings
    assert any(words in warning for warning in warnings), f"The answer does not warn so. Its warnings: {warnings}"


@then(phrase("the virtual machine runs within {seconds:d} seconds"))
def virtual_machine_runs(report: "Report", world: World, seconds: int) -> None:
    created = world.created
    assert created is not None, "No virtual machine was created before this step."
    assert created.state is not None, f"It was refused: {created.answer.message}"
    assert created.state.printable_status == "Running", created.state
    assert created.state.ready, created.state
    assert created.state.phase == "Running", created.state
    last = created.arrows[-1]
    assert last.after is not None, "The audit log holds no write that says the virtual machine is running."
    assert last.after <= timedelta(seconds=seconds), f"It took {last.after.total_seconds():.1f} s."
    report.note(f"{created.state.phase} on {created.state.node} after {last.after / MILLISECOND:.0f} ms")


@then("each arrow of the create sequence is on record, by its own actor and in order")
def create_sequence_observed(report: "Report", world: World) -> None:
    assert world.created is not None, "No virtual machine was created before this step."
    missing = [
        f"{arrow.number} {arrow.title} by {arrow.actor}" for arrow in world.created.arrows if not arrow.observed
    ]
    assert world.created.arrows, "No sequence was observed."
    for arrow in world.created.arrows:
        after = f"{arrow.after / MILLISECOND:>5.0f} ms" if arrow.after is not None else " missing"
        # For an earlier request with the same token, whose answer still held.
        is_earlier = arrow.after is not None and arrow.after < timedelta(0)
        note = f", reviewed {-arrow.after.total_seconds():.1f} s before" if arrow.after and is_earlier else ""
        report.note(f"{after}  {arrow.number:>2} {arrow.title}, by {arrow.actor.rpartition(':')[2]}{note}")
    assert not missing, f"Not on record, or not after the arrow before it: {'; '.join(missing)}"


@then(phrase('"{tenant:Name}" has no virtual machine'))
def has_no_virtual_machine(session: "Session", world: World, tenant: str) -> None:
    names = session.ask(Scenario.list_virtual_machines, world.tenant(tenant).namespace)
    assert names == [], f"{tenant} has {', '.join(names)}."


@then(phrase('"{tenant:Name}" has the virtual machine "{name:Name}"'))
def has_virtual_machine(session: "Session", world: World, tenant: str, name: str) -> None:
    names = session.ask(Scenario.list_virtual_machines, world.tenant(tenant).namespace)
    assert name in names, f"{tenant} has {', '.join(names) or 'none'}."


@given(phrase('"{tenant:Name}" has the replica set of "{vmirs:Manifest}" with the autoscaler of "{hpa:Manifest}"'))
def a_replica_set(session: "Session", world: World, tenant: str, vmirs: Manifest, hpa: Manifest) -> None:
    order = ReplicaSetOrder(
        world.tenant(tenant).namespace,
        (MANIFESTS / vmirs).read_text(),
        (MANIFESTS / hpa).read_text(),
        session.labels,
        RUNNING_WITHIN,
    )
    world.replica_set = session.ask(Scenario.create_replica_set, order)


@when(phrase("{users:d} users send {rate:g} request a second each until the replica set has settled"))
def load_until_settled(session: "Session", world: World, users: int, rate: float) -> None:
    target = world.replica_set
    assert target is not None, "No replica set was made before this step."
    load = LoadOrder(target, users, LOAD_RAMP, SETTLED_WITHIN, rate)
    order = AutoscaleOrder(target, load, SETTLED_WITHIN, SCALED_IN_WITHIN)
    world.autoscaled = session.ask(Scenario.autoscale_under_load, order)


@then(phrase("it has scaled out from {before:d} replica, and never past {maximum:d}"))
def has_scaled_out(world: World, before: int, maximum: int) -> None:
    scaled = world.last_autoscaled()
    assert scaled.before.replicas == before, f"It had {scaled.before.replicas} replicas before the load."
    assert scaled.settled.replicas > before, f"It has {scaled.settled.replicas} replicas under load."
    assert scaled.highest <= maximum, f"It went to {scaled.highest} replicas."


@then("it has settled within the autoscaler's tolerance")
def has_settled(world: World) -> None:
    scaled = world.last_autoscaled()
    if scaled.settled.replicas < scaled.maximum:
        utilization, target = scaled.settled.utilization, scaled.target_utilization
        assert utilization is not None, "The autoscaler has no figures."
        assert abs(utilization / target - 1) <= TOLERANCE, f"It settled at {utilization} %, target {target} %."


@then(phrase("the latency has recovered to a P95 of at most {limit:d} ms"))
def latency_has_recovered(report: "Report", world: World, limit: int) -> None:
    load = world.last_autoscaled().load
    worst, last = load.worst.p95, load.last.p95
    for title, stretch in (("whole load", load.whole), ("worst 10 s", load.worst), ("last 10 s", load.last)):
        p95 = "among the failed" if stretch.p95 is None else f"{stretch.p95 / MILLISECOND:.0f} ms"
        report.note(f"{title}: P95 {p95}, {stretch.requests} requests, {stretch.failed} failed")
    assert load.never_started == 0, f"{load.never_started} users never started."
    assert last is not None, f"In the last seconds {load.last.failed} of {load.last.requests} requests failed."
    assert last <= timedelta(milliseconds=limit), f"The P95 at the end is {last / MILLISECOND:.0f} ms."
    assert worst is None or worst > timedelta(milliseconds=limit), "The latency never rose: this load was no load."


@then(phrase("it has scaled in to {minimum:d} replica after the load"))
def has_scaled_in(world: World, minimum: int) -> None:
    scaled = world.last_autoscaled()
    assert scaled.after.replicas == minimum, f"It has {scaled.after.replicas} replicas after the load."
    assert scaled.decisions, "The audit log holds no decision of the autoscaler."
    assert scaled.decisions[-1].after == minimum, f"The last decision in the audit log was {scaled.decisions[-1]}."


@then("each decision agrees with the autoscaler's metrics and policy, and virt-controller followed it")
def decisions_agree(report: "Report", world: World) -> None:
    decisions = world.last_autoscaled().decisions
    for d in decisions:
        after = (d.at - decisions[0].at).total_seconds()
        report.note(f"{after:>5.1f} s  {d.before} → {d.after} at {d.utilization} % of {d.target} %")
    wrong = [f"{d.before} → {d.after}: {d.disagreement}" for d in decisions if d.disagreement]
    not_followed = [f"{d.before} → {d.after}" for d in decisions if not d.followed]
    assert decisions, "The audit log holds no decision of the autoscaler."
    assert not wrong, f"Decisions that do not agree: {'; '.join(wrong)}"
    assert not not_followed, f"Decisions that virt-controller did not follow: {', '.join(not_followed)}"
