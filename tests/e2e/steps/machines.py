"""Steps about one virtual machine, and about what the gateway answers."""

from datetime import timedelta
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

from pytest_bdd import given, then, when

from tests.e2e.phrases import Manifest, phrase
from tests.e2e.steps.world import MANIFESTS, MILLISECOND, RUNNING_WITHIN, World
from virtflow.errors import SloMissedError
from workflows.models import GatewayRequest, ObservedArrow, Verb, VirtualMachineOrder
from workflows.scenario import Scenario

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report


@given(phrase('"{tenant:Name}" has the running virtual machine of "{manifest:Manifest}"'))
def a_running_virtual_machine(session: "Session", world: World, tenant: str, manifest: Manifest) -> None:
    create_virtual_machine(session, world, tenant, manifest)
    assert world.created is not None
    assert world.last_answer().code == 201, world.last_answer().message
    world.running[tenant] = world.created


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
    took = created.took
    assert took is not None, "The audit log holds no write that says the virtual machine is running."
    if took > timedelta(seconds=seconds):
        raise SloMissedError(
            f"It runs after {took.total_seconds():.1f} s, not within {seconds} s. {slowest(created.arrows)}"
        )
    report.note(f"{created.state.phase} on {created.state.node} after {took / MILLISECOND:.0f} ms")


def slowest(arrows: list[ObservedArrow]) -> str:
    """Where most of the time went."""
    timed = [(arrow.after, arrow) for arrow in arrows if arrow.after is not None]
    if len(timed) < 2:
        return ""
    pause, arrow = max(
        ((later - earlier, arrow) for (earlier, _), (later, arrow) in pairwise(timed)), key=itemgetter(0)
    )
    return f"{pause.total_seconds():.1f} s of it passed before {arrow.title}, by {arrow.actor.rpartition(':')[2]}."


@then("each arrow of the create sequence is on record, by its own actor and in order")
def create_sequence_observed(report: "Report", world: World) -> None:
    assert world.created is not None, "No virtual machine was created before this step."
    arrows_observed(report, world.created.arrows)


def arrows_observed(report: "Report", arrows: list[ObservedArrow]) -> None:
    """Show each arrow, and fail for what is missing."""
    missing = [f"{arrow.number} {arrow.title} by {arrow.actor}" for arrow in arrows if not arrow.observed]
    assert arrows, "No sequence was observed."
    for arrow in arrows:
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
