"""Steps about who may do what where: the whole matrix, single requests at a door, tokens that must open nothing."""

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from pytest_bdd import given, then, when

from tests.e2e.phrases import ACTS, KINDS, phrase
from tests.e2e.steps.world import World
from virtflow.access.matrix import OWN, VERBS, WHOLE_CLUSTER
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
WATCHED_FOR = timedelta(seconds=60)
LEGEND = (
    "In each cell the gateway's answer, then the kube-apiserver's: ✓ allowed, · denied, "
    "\N{EN DASH} not offered, ✗ a hole."
)
CLAIMS = {"user": None, "group": "system:masters", "authorization": "Bearer of-somebody-else"}
"""What a header says that would make one somebody else; a user's name is the other tenant's."""


@given(phrase('"{tenant:Name}" has the secret "{name:Name}"'))
def a_secret(session: "Session", world: World, tenant: str, name: str) -> None:
    session.ask(Scenario.create_secret, SecretOrder(world.tenant(tenant).namespace, name, session.labels))


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


@then("the kube-apiserver's own log says the same of each request that reached it")
def log_says_the_same(report: "Report", world: World) -> None:
    evidence = world.last_matrix().evidence
    contradictions = evidence.contradictions
    assert not contradictions, "The audit log says otherwise:\n" + "\n".join(contradictions)
    assert evidence.decisions, "The audit log has nothing of any request."
    assert evidence.decisions + evidence.never_arrived == world.last_matrix().totals.requests
    report.note(
        f"{evidence.decisions} decisions in the log agree; {evidence.never_arrived} requests that the gateway "
        "refused never reached it"
    )


@then("no tenant has written anything outside its own namespace")
def no_strays(world: World) -> None:
    strays = world.last_matrix().evidence.strays
    assert not strays, "The audit log has writes of tenants outside their namespaces:\n" + "\n".join(strays)


@then(phrase('"{tenant:Name}" can "{verbs:Name}" its own {kind:Kind}'))
def can_do(world: World, tenant: str, verbs: str, kind: str) -> None:
    marks = own_marks(world, tenant)
    plural = KINDS[kind]
    can = [verb for verb, mark in zip(VERBS, marks[plural], strict=True) if mark == MARKS[Outcome.ALLOWED]]
    can += [
        resource.removeprefix(f"{plural}/")
        for resource in marks
        if resource.startswith(f"{plural}/") and MARKS[Outcome.ALLOWED] in marks[resource]
    ]
    assert verbs == (", ".join(can) or "nothing"), f"{tenant} can {', '.join(can) or 'do nothing with'} its {kind}."


def own_marks(world: World, tenant: str) -> dict[str, str]:
    """What was observed at the kube-apiserver, which has all verbs, in the tenant's own namespace."""
    tables = {table.tenant: table for table in world.last_matrix().tables}
    assert tenant in tables, f"{tenant} has tried nothing."
    return {row.resource: row.kube_apiserver for row in tables[tenant].rows if row.place == OWN}


def cells_of(table: AccessTable) -> Iterable[list[str]]:
    for row in table.rows:
        both = ("".join(marks) for marks in zip(row.gateway, row.kube_apiserver, strict=True))
        yield [row.resource, row.place, *both]


# Single requests


@when(phrase('"{tenant:Name}" tries to {act:Act} "{name:Name}" of "{other:Name}" at the {door:Door}'))
def try_one(session: "Session", world: World, tenant: str, act: str, name: str, other: str, door: str) -> None:
    verb, resource = ACTS[act]
    place = world.tenant(other).namespace
    request = DoorRequest(world.tenant(tenant), Door(door), verb, resource, place, name)
    world.door_answer = session.ask(Scenario.request_at_door, request)


@when(phrase('"{tenant:Name}" tries to list all {kind:Kind} of the cluster at the {door:Door}'))
def try_whole_cluster(session: "Session", world: World, tenant: str, kind: str, door: str) -> None:
    request = DoorRequest(world.tenant(tenant), Door(door), "list", KINDS[kind], WHOLE_CLUSTER)
    world.door_answer = session.ask(Scenario.request_at_door, request)


@when(phrase('"{tenant:Name}" lists its own {kind:Kind} at the {door:Door} with its token for the {audience:Door}'))
def try_with_token_for(session: "Session", world: World, tenant: str, kind: str, door: str, audience: str) -> None:
    owner = world.tenant(tenant)
    request = DoorRequest(owner, Door(door), "list", KINDS[kind], owner.namespace, token_for=Door(audience))
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


@when(phrase('the platform deletes the {withdrawal:Withdrawal} that a token of "{tenant:Name}" depends on'))
def withdraw(session: "Session", world: World, withdrawal: str, tenant: str) -> None:
    order = WithdrawnTokenOrder(world.tenant(tenant), Withdrawal(withdrawal), WATCHED_FOR, session.labels)
    world.withdrawn = session.ask(Scenario.withdraw_token, order)
    world.answer = world.withdrawn.last


@then(phrase("the token, which worked before, is refused within {seconds:d} seconds"))
def is_refused_within(report: "Report", world: World, seconds: int) -> None:
    token = world.withdrawn
    assert token is not None, "No token was withdrawn before this step."
    let_in_for = token.let_in_for.total_seconds()
    assert token.worked == 200, f"It did not work before: the gateway answered {token.worked}."
    assert token.last.code == 401, f"After {let_in_for:.0f} s it is still answered with {token.last.code}."
    assert let_in_for <= seconds, f"It was let in for {let_in_for:.1f} s."
    report.note(f"let in for {let_in_for:.1f} s")


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
