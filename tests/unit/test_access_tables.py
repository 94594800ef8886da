"""A hole is seen and named, at each door, and the audit log has the last word."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.access_support import A, B, decision, denial, noted, right_answers
from tests.unit.log_support import RotatingWriter
from virtflow.access.audit import AuditLog, AuditLogBehindError, Decision, Observed
from virtflow.access.matrix import VERBS
from virtflow.access.tables import HOLES_NAMED, Answer, tabulate
from virtflow.kube import Object
from workflows.access_models import AccessMatrix, AccessOrder, AccessRow, Door, Outcome
from workflows.tenant_models import PolicyRule, Tenant

ORDER = AccessOrder([A, B], [A, B])


def observed(*wrong: tuple[Door, str, str, str, Outcome]) -> AccessMatrix:
    """What tenant-a and tenant-b got, right but for these: door, resource, verb and place of tenant-a's request."""
    changes = {(door, resource, verb, place): outcome for door, resource, verb, place, outcome in wrong}
    answers = []
    for answer in right_answers(A, B):
        seen = answer.observed
        key = seen.door, str(seen.cell.target), seen.cell.verb, seen.cell.place
        if seen.cell.actor == A and key in changes:
            answers.append(Answer(replace(seen, outcome=changes.pop(key)), 299, "as the test wants"))
        else:
            answers.append(answer)
    assert not changes
    return tabulate(ORDER, answers, noted(answers))


def row(matrix: AccessMatrix, resource: str, place: str) -> AccessRow:
    (found,) = (each for each in matrix.tables[0].rows if (each.resource, each.place) == (resource, place))
    return found


def test_where_all_is_right_there_is_no_hole() -> None:
    matrix = observed()
    assert matrix.holes == []
    assert matrix.totals.holes == 0
    assert (matrix.totals.cells, matrix.totals.requests) == (660, 1320)
    by_gateway = sum(not answer.observed.is_noted for answer in right_answers(A, B))
    assert by_gateway
    assert (matrix.evidence.decisions, matrix.evidence.never_arrived) == (1320 - by_gateway, by_gateway)
    assert matrix.evidence.contradictions == matrix.evidence.strays == []
    assert [table.tenant for table in matrix.tables] == ["tenant-a", "tenant-b"]
    own = row(matrix, "virtualmachines", "own")
    can = ("get", "list", "create", "update")
    assert own.kube_apiserver == "".join("✓" if verb in can else "·" for verb in VERBS)
    assert own.gateway == "✓✓\N{EN DASH}✓✓\N{EN DASH}·\N{EN DASH}"
    assert row(matrix, "secrets", "whole cluster").kube_apiserver == " ···   ·"


@pytest.mark.parametrize("door", Door)
def test_a_door_that_lets_through_is_a_hole_there(door: Door) -> None:
    matrix = observed((door, "secrets", "get", B.namespace, Outcome.ALLOWED))
    (hole,) = matrix.holes
    assert str(hole) == (
        f'"tenant-a-user" get secrets (tenant-b) at the {door}: '
        "expected denied, observed allowed: 299 as the test wants"
    )
    seen = row(matrix, "secrets", "tenant-b")
    marks = {Door.GATEWAY: seen.gateway[0], Door.KUBE_APISERVER: seen.kube_apiserver[0]}
    assert marks.pop(door) == "✗"
    assert list(marks.values()) == ["·"]


@pytest.mark.parametrize(
    ("door", "verb", "outcome"),
    [
        (Door.GATEWAY, "watch", Outcome.ALLOWED),
        (Door.GATEWAY, "get", Outcome.NOT_OFFERED),
        (Door.GATEWAY, "get", Outcome.DENIED),
        (Door.KUBE_APISERVER, "get", Outcome.DENIED),
        (Door.KUBE_APISERVER, "get", Outcome.UNCLEAR),
    ],
)
def test_whatever_differs_is_a_hole(door: Door, verb: str, outcome: Outcome) -> None:
    matrix = observed((door, "virtualmachines", verb, A.namespace, outcome))
    assert [(hole.door, hole.verb, hole.observed) for hole in matrix.holes] == [(door, verb, outcome)]
    assert matrix.totals.holes == 1


@pytest.mark.parametrize("user", ["tenant-a-user", "tenant-a-other"])
def test_a_hole_of_one_user_is_its_tenants(user: str) -> None:
    two = replace(A, users=["tenant-a-user", "tenant-a-other"])
    answers = [
        Answer(replace(each.observed, outcome=Outcome.ALLOWED), 200, "")
        if (str(each.observed.cell.target), each.observed.cell.verb, each.observed.cell.place, each.observed.door)
        == ("secrets", "get", B.namespace, Door.GATEWAY)
        and each.observed.cell.account == user
        else each
        for each in right_answers(two, B)
    ]
    matrix = tabulate(AccessOrder([two, B], [two, B]), answers, noted(answers))
    assert [hole.user for hole in matrix.holes] == [user]
    assert row(matrix, "secrets", "tenant-b").gateway[0] == "✗"
    assert row(matrix, "secrets", "tenant-b").kube_apiserver[0] == "·"


def test_a_write_outside_by_any_user_of_any_tenant_is_told() -> None:
    idle = Tenant("tenant-c", "tenant-c-1", ["tenant-c-user", "tenant-c-other"])
    user = f"system:serviceaccount:{idle.namespace}:tenant-c-other"
    stray = Decision("another-id", user, "create", "", "secrets", B.namespace, 201, allowed=True)
    evidence = tabulate(AccessOrder([A], [A, B, idle]), right_answers(A), [stray]).evidence
    assert evidence.strays == [f"{user} could create secrets in namespace {B.namespace} (201)"]


def test_an_open_cluster_still_makes_a_small_history() -> None:
    tenants = [Tenant(f"tenant-{each}", f"tenant-{each}-12345678", ["a"], []) for each in "abcd"]
    everything = [replace(tenant, role=[PolicyRule(["*"], ["*"], ["*"])]) for tenant in tenants]
    answers = [
        Answer(replace(answer.observed, outcome=Outcome.ALLOWED), 200, "") for answer in right_answers(*everything)
    ]
    matrix = tabulate(AccessOrder(everything, everything), answers, [])
    assert matrix.totals.cells == 1728
    assert len(matrix.holes) == HOLES_NAMED < matrix.totals.holes
    assert len(json.dumps(asdict(matrix))) < 100 * 1024


def test_what_the_log_does_not_have_is_a_contradiction() -> None:
    answers = right_answers(A, B)
    decisions = [each for each in noted(answers) if each.audit_id != "probe-00000-k"]
    evidence = tabulate(ORDER, answers, decisions).evidence
    assert evidence.contradictions == [
        f'"tenant-a-user" get virtualmachines in {A.namespace} at the kube-apiserver was allowed, '
        "but the audit log has no decision on it"
    ]
    assert evidence.decisions + evidence.never_arrived == 1319


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"allowed": False}, "decided to deny it"),
        ({"namespace": B.namespace}, "heard another request"),
        ({"user": "system:admin"}, "heard another request"),
        ({"verb": "list"}, "heard another request"),
    ],
)
def test_the_log_contradicts(change: Object, words: str) -> None:
    answers = right_answers(A, B)
    decisions = [replace(each, **change) if each.audit_id == "probe-00000-g" else each for each in noted(answers)]
    (said,) = tabulate(ORDER, answers, decisions).evidence.contradictions
    assert words in said


def by_gateway(answers: list[Answer], outcome: Outcome) -> Observed:
    return next(a.observed for a in answers if a.observed.door is Door.GATEWAY and a.observed.outcome is outcome)


def test_a_request_that_the_gateway_does_not_have_and_sends_all_the_same_is_told() -> None:
    answers = right_answers(A, B)
    sent = by_gateway(answers, Outcome.NOT_OFFERED)
    (said,) = tabulate(ORDER, answers, [*noted(answers), decision(sent)]).evidence.contradictions
    assert "it reached the kube-apiserver all the same" in said


def test_what_the_gateway_let_through_by_a_review_of_a_moment_ago_is_denied_behind_it() -> None:
    """A role that was narrowed: the gateway may use a review for ten seconds."""
    answers = right_answers(A, B)
    before = tabulate(ORDER, answers, noted(answers)).evidence
    denied = decision(by_gateway(answers, Outcome.DENIED))
    evidence = tabulate(ORDER, answers, [*noted(answers), denied]).evidence
    assert evidence.contradictions == []
    assert (evidence.decisions, evidence.never_arrived) == (before.decisions + 1, before.never_arrived - 1)
    allowed = replace(denied, allowed=True)
    (said,) = tabulate(ORDER, answers, [*noted(answers), allowed]).evidence.contradictions
    assert "decided to allow it" in said


def test_a_request_that_was_turned_away_before_anybody_decided_says_nothing() -> None:
    answers = right_answers(A, B)
    allowed = next(answer.observed for answer in answers if answer.observed.outcome is Outcome.ALLOWED)
    busy = replace(decision(allowed), code=429, allowed=None)
    evidence = tabulate(ORDER, answers, [busy, *noted(answers)]).evidence
    assert evidence.contradictions == []
    alone = [busy, *(each for each in noted(answers) if each.audit_id != busy.audit_id)]
    (said,) = tabulate(ORDER, answers, alone).evidence.contradictions
    assert "the audit log has no decision on it" in said


@pytest.mark.parametrize(("noted_as", "allowed"), [("allow", True), ("forbid", False), ("", None)])
def test_an_event_says_what_was_decided_if_anything_was(noted_as: str, allowed: bool | None) -> None:
    assert Decision.of(json.loads(event("one", "u1", decision=noted_as))).allowed is allowed


@pytest.mark.parametrize("place", [B.namespace, ""])
def test_a_write_outside_is_told_whoever_sent_it(place: str) -> None:
    answers = right_answers(A, B)
    own = answers[0].observed.cell
    stray = Decision("another-id", own.user, "create", "", "secrets", place, 201, allowed=True)
    inside = replace(stray, namespace=A.namespace)
    refused = replace(stray, code=403, allowed=False)
    read = replace(stray, verb="get", code=200)
    evidence = tabulate(ORDER, answers, [*noted(answers), stray, inside, refused, read]).evidence
    where = f"namespace {place}" if place else "the whole cluster"
    assert evidence.strays == [f"{own.user} could create secrets in {where} (201)"]


def event(audit_id: str, user: str, *, decision: str = "allow", impersonated: str = "") -> bytes:
    said: Object = {
        "kind": "Event",
        "auditID": audit_id,
        "stage": "ResponseComplete",
        "verb": "get",
        "user": {"username": user},
        "objectRef": {"apiGroup": "g", "resource": "pods", "subresource": "log", "namespace": "n"},
        "responseStatus": {"code": 200},
        "annotations": {"authorization.k8s.io/decision": decision} if decision else {},
    }
    if impersonated:
        said["impersonatedUser"] = {"username": impersonated}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RotatingWriter]:
    with closing(RotatingWriter(tmp_path / "audit.log")) as writer:
        yield writer


@pytest.mark.anyio
async def test_the_log_is_read_from_now_to_the_marker_over_rotations(log: RotatingWriter) -> None:
    log.write(event("before", "u1"))
    with closing(AuditLog(log.path)) as reader:
        log.write(event("one", "gateway", impersonated="u1") + event("other", "u2"))
        log.rotate()
        log.write(event("two", "u1", decision="forbid"))
        log.rotate()
        log.write(event("end", "admin"))
        found = await reader.read_until("end", ["u1"], timedelta(seconds=20))
    assert found == [
        Decision("one", "u1", "get", "g", "pods/log", "n", 200, allowed=True),
        Decision("two", "u1", "get", "g", "pods/log", "n", 200, allowed=False),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("rotations", range(3))
async def test_a_look_back_finds_what_was_there_over_rotations(log: RotatingWriter, rotations: int) -> None:
    log.write(event("one", "u1"))
    for _ in range(rotations):
        log.rotate()
    log.write(event("end", "admin"))
    with closing(AuditLog(log.path, back=100_000)) as reader:
        found = await reader.read_until("end", ["one"], timedelta(seconds=20))
    assert [each.audit_id for each in found] == ["one"]


@pytest.mark.anyio
async def test_what_was_written_on_behind_half_a_line_is_read(log: RotatingWriter) -> None:
    with closing(AuditLog(log.path)) as reader:
        log.write(event("torn", "u1")[:-40] + event("one", "u1") + event("end", "admin"))
        found = await reader.read_until("end", ["u1"], timedelta(seconds=20))
    assert [each.audit_id for each in found] == ["one"]


@pytest.mark.anyio
async def test_a_log_without_the_marker_proves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"")
    reader = AuditLog(log)
    with pytest.raises(AuditLogBehindError, match="is not in this log 0 s after"):
        await reader.read_until("end", ["u1"], timedelta(milliseconds=10))
    reader.close()


def test_a_denial_in_words_is_that_of_the_kube_apiserver() -> None:
    cell = right_answers(A, B)[0].observed.cell
    assert denial(cell)["message"].startswith('virtualmachines is forbidden: User "system:serviceaccount:tenant-a-1')


@pytest.mark.anyio
async def test_what_is_noted_after_the_marker_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"")
    reader = AuditLog(log)
    with log.open("ab", buffering=0) as file:
        file.write(event("one", "u1") + event("end", "admin"))
        reading = asyncio.create_task(reader.read_until("end", ["u1"], timedelta(seconds=20), ["one", "late"]))
        await asyncio.sleep(0)
        late = event("late", "u1")
        file.write(late[:50])
        await asyncio.sleep(0)
        file.write(late[50:])
        assert [each.audit_id for each in await reading] == ["one", "late"]
    reader.close()


@pytest.mark.anyio
async def test_what_is_never_noted_is_for_the_reader_to_miss(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"")
    reader = AuditLog(log)
    log.write_bytes(event("one", "u1") + event("end", "admin"))
    found = await reader.read_until("end", ["u1"], timedelta(milliseconds=200), ["one", "never"])
    reader.close()
    assert [each.audit_id for each in found] == ["one"]
