"""Steps about who may do what where: the whole matrix, single requests at a door, tokens that must open nothing."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from pytest_bdd import given, parsers, then, when

from tests.e2e.phrases import quoted_name
from tests.e2e.steps import World
from virtflow.access.matrix import OWN, TARGETS, VERBS, WHOLE_CLUSTER
from virtflow.access.tables import MARKS
from workflows.access_models import (
    AccessOrder,
    AccessTable,
    Door,
    DoorRequest,
    Outcome,
    SecretOrder,
    Withdrawal,
    WithdrawnTokenOrder,
)
from workflows.models import Bearer, GatewayRequest, Verb
from workflows.scenario import Scenario

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report

HOLES_SHOWN = 20
LEGEND = (
    "In each cell the gateway's answer, then the kube-apiserver's: ✓ allowed, · denied, "
    "\N{EN DASH} not offered, ✗ a hole."
)
CLAIMS = {"user": None, "group": "system:masters", "authorization": "Bearer of-somebody-else"}
"""What a header says that would make one somebody else; a user's name is the other tenant's."""


def one_of(words: Iterable[str]) -> Callable[[str], str]:
    """A type for `parse`: any other word is no step, and is told before anything is started."""

    def take(text: str) -> str:
        return text

    take.pattern = "|".join(sorted(words, key=len, reverse=True))  # type: ignore[attr-defined]
    return take


def kind_of(kinds: type[StrEnum]) -> Callable[[str], str]:
    return one_of(kind.value for kind in kinds)


WORDS = {
    "Name": quoted_name,
    "Door": kind_of(Door),
    "Bearer": kind_of(Bearer),
    "Withdrawal": kind_of(Withdrawal),
    "Verb": one_of(VERBS),
    "Resource": one_of(str(target) for target in TARGETS),
}


def phrase(text: str) -> parsers.parse:
    return parsers.parse(text, extra_types=WORDS)


@given(phrase('"{tenant:Name}" has the secret "{name:Name}"'))
def a_secret(session: "Session", world: World, tenant: str, name: str) -> None:
    session.ask(Scenario.create_secret, SecretOrder(world.tenant(tenant).namespace, name, session.labels))


@given(phrase('the tenant "{name:Name}" of "{file:Name}"'))
def a_tenant_of_file(session: "Session", world: World, name: str, file: str) -> None:
    from pathlib import Path

    from virtflow.tenant_files import load_tenant
    from workflows.tenant_models import TenantOrder

    spec = load_tenant(Path(__file__).parents[2] / "features" / "tenants" / file).spec
    order = TenantOrder(name, session.namespace_of(name), session.labels, spec)
    world.tenants[name] = session.ask(Scenario.create_tenant, order)


# The matrix


@when("every tenant tries every request, in every namespace and in the whole cluster, at both doors")
def try_everything(session: "Session", world: World) -> None:
    tenants = list(world.tenants.values())
    world.matrix = session.ask(Scenario.try_everything, AccessOrder(tenants, tenants))


@then("each of them can do what its role says, and nothing else")
def no_holes(report: "Report", world: World) -> None:
    matrix = world.last_matrix()
    for table in matrix.tables:
        report.table(f"What {table.tenant} can do. {LEGEND}", ["resource", "place", *VERBS], list(cells_of(table)))
    totals = matrix.totals
    report.note(
        f"{totals.cells} cells, {totals.requests} requests: {totals.allowed} allowed, {totals.denied} denied, "
        f"{totals.not_offered} not offered by the gateway, {totals.holes} holes"
    )
    shown = [str(hole) for hole in matrix.holes[:HOLES_SHOWN]]
    more = totals.holes - len(shown)
    shown += [f"and {more} more, which summary.md shows"] if more > 0 else []
    number = "There is a hole" if totals.holes == 1 else f"There are {totals.holes} holes"
    assert not totals.holes, f"{number}:\n" + "\n".join(shown)
    assert totals.requests, "Nothing was tried."


@then("the kube-apiserver's own log says the same of each request")
def log_says_the_same(report: "Report", world: World) -> None:
    evidence = world.last_matrix().evidence
    contradictions = evidence.contradictions
    assert not contradictions, "The audit log says otherwise:\n" + "\n".join(contradictions)
    assert evidence.decisions == world.last_matrix().totals.requests
    report.note(f"{evidence.decisions} decisions compared with the audit log")


@then("no tenant has written anything outside its own namespace")
def no_strays(world: World) -> None:
    strays = world.last_matrix().evidence.strays
    assert not strays, "The audit log has writes of tenants outside their namespaces:\n" + "\n".join(strays)


@then(phrase('"{tenant:Name}" can "{verbs:Name}" its {resource:Resource}'))
def can_do(world: World, tenant: str, verbs: str, resource: str) -> None:
    can = allowed(world, tenant, resource, OWN)
    wanted = [] if verbs == "nothing" else verbs.split(", ")
    assert can == wanted, f"{tenant} can {', '.join(can) or 'do nothing with'} its {resource}."


def cells_of(table: AccessTable) -> Iterable[list[str]]:
    for row in table.rows:
        both = ("".join(marks) for marks in zip(row.gateway, row.kube_apiserver, strict=True))
        yield [row.resource, row.place, *both]


def allowed(world: World, tenant: str, resource: str, place: str) -> list[str]:
    """At the kube-apiserver, which has all verbs."""
    tables = {table.tenant: table for table in world.last_matrix().tables}
    assert tenant in tables, f"{tenant} has tried nothing."
    (row,) = (row for row in tables[tenant].rows if (row.resource, row.place) == (resource, place))
    return [verb for verb, mark in zip(VERBS, row.kube_apiserver, strict=True) if mark == MARKS[Outcome.ALLOWED]]


# Single requests


@when(
    phrase(
        '"{tenant:Name}" tries to {verb:Verb} the {resource:Resource} "{name:Name}" of "{other:Name}" '
        "at the {door:Door}"
    )
)
def try_one(
    session: "Session", world: World, tenant: str, verb: str, resource: str, name: str, other: str, door: str
) -> None:
    place = world.tenant(other).namespace
    request = DoorRequest(world.tenant(tenant), Door(door), verb, resource, place, name)
    world.door_answer = session.ask(Scenario.request_at_door, request)


@when(phrase('"{tenant:Name}" tries to list the {resource:Resource} of the whole cluster at the {door:Door}'))
def try_whole_cluster(session: "Session", world: World, tenant: str, resource: str, door: str) -> None:
    request = DoorRequest(world.tenant(tenant), Door(door), "list", resource, WHOLE_CLUSTER)
    world.door_answer = session.ask(Scenario.request_at_door, request)


@when(
    phrase('"{tenant:Name}" lists its {resource:Resource} at the {door:Door} with its token for the {audience:Door}')
)
def try_with_token_for(
    session: "Session", world: World, tenant: str, resource: str, door: str, audience: str
) -> None:
    owner = world.tenant(tenant)
    request = DoorRequest(owner, Door(door), "list", resource, owner.namespace, token_for=Door(audience))
    world.door_answer = session.ask(Scenario.request_at_door, request)


@then(phrase('it is refused with {code:d} "{reason:Name}"'))
def is_refused(world: World, code: int, reason: str) -> None:
    answer = world.last_door_answer()
    said = f"The answer was {answer.code} {answer.reason!r}: {answer.message}"
    assert (answer.code, answer.reason) == (code, reason), said


@then("it is let in")
def is_let_in(world: World) -> None:
    answer = world.last_door_answer()
    assert answer.code == 200, f"The answer was {answer.code} {answer.reason!r}: {answer.message}"


# Tokens


@when(phrase('somebody lists the virtual machines of "{tenant:Name}" with a token that is {bearer:Bearer}'))
def list_with_token(session: "Session", world: World, tenant: str, bearer: str) -> None:
    request = GatewayRequest(world.tenant(tenant), Verb.LIST, bearer=Bearer(bearer))
    world.answer = session.ask(Scenario.request_gateway, request)


@when(phrase('"{tenant:Name}" claims to be "{other:Name}" by the header "{header:Name}"'))
def claim_to_be(session: "Session", world: World, tenant: str, other: str, header: str) -> None:
    claimed = CLAIMS.get(header.lower().rpartition("-")[2], "claimed")
    victim = world.tenant(other)
    value = claimed or f"system:serviceaccount:{victim.namespace}:{victim.user}"
    request = GatewayRequest(world.tenant(tenant), Verb.LIST, namespace=victim.namespace, headers={header: value})
    world.answer = session.ask(Scenario.request_gateway, request)


@when(
    phrase(
        'the platform deletes the {withdrawal:Withdrawal} of a token that "{tenant:Name}" uses, '
        "and it is refused within {seconds:d} seconds"
    )
)
def withdraw(session: "Session", report: "Report", world: World, withdrawal: str, tenant: str, seconds: int) -> None:
    within = timedelta(seconds=seconds)
    order = WithdrawnTokenOrder(world.tenant(tenant), Withdrawal(withdrawal), within)
    token = session.ask(Scenario.withdraw_token, order)
    world.answer = token.refused
    assert token.worked == 200, f"It did not work before: {token.worked}."
    assert token.refused.code == 401, f"{token.after.total_seconds():.0f} s later the answer is {token.refused.code}."
    assert token.after <= within, f"It was refused after {token.after.total_seconds():.1f} s."
    report.note(f"refused after {token.after.total_seconds():.1f} s")


@then("the answer says no more than that")
def says_no_more(world: World) -> None:
    answer = world.last_answer()
    causes = answer.body.get("details", {}).get("causes", [])
    assert answer.message == answer.reason, f"It says: {answer.message}"
    assert [cause["reason"] for cause in causes] == ["RequestId"], f"It has as causes: {causes}"


@then(phrase('the gateway\'s log says why: "{words:Name}"'))
def log_says_why(session: "Session", report: "Report", world: World, words: str) -> None:
    logged = session.ask(Scenario.read_logs, world.last_answer().request_id)
    assert words in logged.reason, f"The log's reason is: {logged.reason}"
    assert logged.verdict == "unauthenticated", f"The log's verdict is {logged.verdict!r}."
    assert not logged.forwarded, "The kube-apiserver has heard of the request."
    report.note(logged.reason)


@then("nothing of it reaches the kube-apiserver")
def nothing_arrives(session: "Session", world: World) -> None:
    logged = session.ask(Scenario.read_logs, world.last_answer().request_id)
    assert not logged.heard, f"The audit log has of it: {', '.join(logged.heard)}"
