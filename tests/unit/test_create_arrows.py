"""Arrows 1 to 4 as a real gateway and kube-apiserver recorded them, and what is missing when they did not."""

import json
from contextlib import closing
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities import evidence
from activities.evidence import Evidence
from virtflow.kube import KubeClient
from virtflow.sequence.audit import AccessRecord, access_record_of, write_of
from virtflow.sequence.create import observe_request_and_create, review_ids
from virtflow.sequence.records import Records
from workflows.models import CreateEvidence, ObservedArrow, VirtualMachineRef
from workflows.tenant_models import Tenant

ID = "0e0922a987e848bc96dcbc4d12d0c7aa"
NAMESPACE = "tenant-a-970a4020"
USER = f"system:serviceaccount:{NAMESPACE}:tenant-a-user"
GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"
EVIDENCE = CreateEvidence(
    VirtualMachineRef(NAMESPACE, "test-vm", "13f54d68"), ID, Tenant("tenant-a", NAMESPACE, ["tenant-a-user"])
)
MUTATION = "mutation.webhook.admission.k8s.io/round_0_index_0"
MUTATED = {"configuration": "virt-api-mutator", "webhook": "virtualmachines-mutator.kubevirt.io", "mutated": True}

Event = dict[str, Any]


def event(audit_id: str, second: int, ref: Event, **more: Any) -> Event:
    return {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": audit_id,
        "stage": "ResponseComplete",
        "verb": "create",
        "user": {"username": GATEWAY},
        "userAgent": "iam-gateway",
        "objectRef": ref,
        "responseStatus": {"metadata": {}, "code": 201},
        "requestReceivedTimestamp": f"2026-11-23T11:46:{second:02}.940790Z",
        "annotations": {"authorization.k8s.io/decision": "allow"},
        **more,
    }


RECORD: Event = {
    "time": "2026-11-23T11:46:59.964291Z",
    "request_id": ID,
    "user": USER,
    "tenant": NAMESPACE,
    "namespace": NAMESPACE,
    "verb": "create",
    "resource": "virtualmachines",
    "name": "test-vm",
    "token_review": f"{ID}-tokenreview",
    "access_review": f"{ID}-accessreview",
    "code": 201,
    "reason": 'RBAC: allowed by RoleBinding "tenant-a-binding"',
    "verdict": "allowed",
    "latency_ms": 24.887,
}
TOKEN_REVIEW = event(f"{ID}-tokenreview", 10, {"resource": "tokenreviews", "apiGroup": "authentication.k8s.io"})
ACCESS_REVIEW = event(
    f"{ID}-accessreview", 11, {"resource": "subjectaccessreviews", "apiGroup": "authorization.k8s.io"}
)
CREATE = event(
    ID,
    12,
    {"resource": "virtualmachines", "namespace": NAMESPACE, "name": "test-vm", "apiGroup": "kubevirt.io"},
    level="RequestResponse",
    impersonatedUser={"username": USER},
    responseObject={"metadata": {"name": "test-vm", "namespace": NAMESPACE, "uid": "13f54d68"}},
    annotations={
        "authorization.k8s.io/decision": "allow",
        MUTATION: json.dumps(MUTATED),
        "patch.webhook.admission.k8s.io/round_0_index_0": json.dumps({**MUTATED, "patch": []}),
    },
)
CREATE_VMI = event(
    "another-id",
    13,
    {"resource": "virtualmachineinstances", "namespace": NAMESPACE, "name": "test-vm"},
    user={"username": "system:serviceaccount:kubevirt:kubevirt-controller"},
    responseObject={"metadata": {"uid": "vmi", "ownerReferences": [{"uid": "13f54d68", "controller": True}]}},
)
EVENTS = [TOKEN_REVIEW, ACCESS_REVIEW, CREATE, CREATE_VMI]
TOKEN, ACCESS, FORWARD, STORE, VMI = (
    (2, "TokenReview"),
    (2, "SubjectAccessReview"),
    (3, "forward as the tenant, past virt-api"),
    (4, "create VirtualMachine"),
    (6, "create VMI"),
)
REQUEST = (1, "POST virtualmachines")
PROVEN = [{TOKEN}, {ACCESS}, {FORWARD, STORE}, {VMI}]
"""What each of EVENTS proves."""
ALL = {REQUEST, *set().union(*PROVEN)}


def changed(original: Event, **changes: Any) -> Event:
    return {**deepcopy(original), **changes}


def observe(records: list[Event], events: list[Event]) -> list[ObservedArrow]:
    writes = [write for each in events if (write := write_of(json.dumps(each).encode()))]
    return observe_request_and_create(
        EVIDENCE, [access_record_of(json.dumps(each).encode()) for each in records], writes
    )


def observed(records: list[Event], events: list[Event]) -> set[tuple[int, str]]:
    arrows = observe(records, events)
    assert all((arrow.after is not None) == arrow.observed for arrow in arrows)
    return {(arrow.number, arrow.title) for arrow in arrows if arrow.observed}


def test_a_request_is_observed_from_its_record_to_what_was_stored() -> None:
    arrows = observe([RECORD], EVENTS)
    assert [arrow.number for arrow in arrows] == [1, 2, 2, 3, 4, 6, 6, 8, 9, 10, 11]
    assert {(arrow.number, arrow.title) for arrow in arrows if arrow.observed} == ALL
    assert [arrow.at and arrow.at.second for arrow in arrows[:6]] == [None, 10, 11, 12, 12, 13]
    assert [arrow.actor for arrow in arrows[:5]] == [USER, GATEWAY, GATEWAY, GATEWAY, GATEWAY]
    assert [arrow.after.total_seconds() for arrow in arrows if arrow.after is not None] == [0, 0, 1, 2, 2, 3]


def test_nothing_is_observed_where_nothing_was_recorded() -> None:
    assert observed([], []) == set()


@given(st.booleans(), st.lists(st.booleans(), min_size=len(EVENTS), max_size=len(EVENTS)))
def test_what_was_not_recorded_is_missing_and_nothing_else(record: bool, kept: list[bool]) -> None:
    events = [each for each, is_kept in zip(EVENTS, kept, strict=True) if is_kept]
    proven = set().union(*(titles for titles, is_kept in zip(PROVEN, kept, strict=True) if is_kept))
    assert observed([RECORD] if record else [], events) == proven | ({REQUEST} if record else set())


@given(st.permutations(range(len(EVENTS))))
def test_what_came_before_the_arrow_before_it_is_missing(order: list[int]) -> None:
    expected, last = {REQUEST}, -1
    for number, titles in enumerate(PROVEN):
        if order.index(number) > last:
            expected |= titles
            last = order.index(number)
    assert observed([RECORD], [EVENTS[number] for number in order]) == expected
    assert (expected == ALL) == (order == sorted(order))


OTHER_TENANT = f"system:serviceaccount:{NAMESPACE}-2:tenant-a-user"
OTHER_HOOK = json.dumps({**MUTATED, "configuration": "another-mutator"})
NO_PROOF_OF_THE_WRITE = {
    "another tenant's name": changed(CREATE, impersonatedUser={"username": OTHER_TENANT}),
    "another user of the tenant": changed(CREATE, impersonatedUser={"username": f"{USER}-2"}),
    "nobody's name": {key: value for key, value in CREATE.items() if key != "impersonatedUser"},
    "another actor": changed(CREATE, user={"username": USER}),
    "another request": changed(CREATE, auditID="f" * 32),
    "another machine": changed(CREATE, responseObject={"metadata": {"name": "test-vm", "uid": "earlier"}}),
    "an update": changed(CREATE, verb="update"),
    "no webhook": changed(CREATE, annotations={"authorization.k8s.io/decision": "allow"}),
    "another webhook": changed(CREATE, annotations={MUTATION: OTHER_HOOK}),
    "a webhook that was not called": changed(CREATE, annotations={"failed-open." + MUTATION: json.dumps(MUTATED)}),
}


@pytest.mark.parametrize("why", NO_PROOF_OF_THE_WRITE)
def test_a_write_that_is_not_the_tenants_request_proves_neither_arrow(why: str) -> None:
    events = [TOKEN_REVIEW, ACCESS_REVIEW, NO_PROOF_OF_THE_WRITE[why], CREATE_VMI]
    assert observed([RECORD], events) == ALL - {FORWARD, STORE}


def test_a_write_that_was_not_stored_was_forwarded_only() -> None:
    answered = changed(CREATE, responseStatus={"metadata": {}, "code": 200})
    assert observed([RECORD], [TOKEN_REVIEW, ACCESS_REVIEW, answered, CREATE_VMI]) == ALL - {STORE}


@given(st.sampled_from([0, 1]), st.sampled_from(["user", "auditID", "verb", "objectRef"]))
def test_a_review_that_is_not_the_requests_own_proves_nothing(number: int, what: str) -> None:
    wrong: Event = {
        "user": {"username": USER},
        "auditID": ID,
        "verb": "update",
        "objectRef": {"resource": "selfsubjectreviews"},
    }
    events = list(EVENTS)
    events[number] = changed(EVENTS[number], **{what: wrong[what]})
    assert observed([RECORD], events) == ALL - PROVEN[number]


@given(
    st.sampled_from(
        [
            ("request_id", "f" * 32),
            ("user", OTHER_TENANT),
            ("tenant", f"{NAMESPACE}-2"),
            ("namespace", f"{NAMESPACE}-2"),
            ("verb", "update"),
            ("resource", "pods"),
            ("code", 403),
            ("code", 200),
            ("verdict", "denied"),
        ]
    )
)
def test_a_record_that_says_anything_else_is_not_the_requests(change: tuple[str, Any]) -> None:
    key, value = change
    assert observed([{**RECORD, key: value}], EVENTS) == ALL - {REQUEST}
    # A record of the same id beside it takes nothing away: a caller may send an id again.
    assert observed([{**RECORD, key: value}, RECORD], EVENTS) == ALL


EARLIER = {"token_review": "earlier-tokenreview", "access_review": "earliest-accessreview"}


def earlier(review: Event, audit_id: str, second: float) -> Event:
    at = f"2026-11-23T11:46:{second:09.6f}Z"
    return changed(review, auditID=audit_id, requestReceivedTimestamp=at)


def test_reviews_of_earlier_requests_prove_a_request_that_names_them() -> None:
    """In any order, and the time begins with the request's own first write."""
    reviews = [
        earlier(ACCESS_REVIEW, EARLIER["access_review"], 3.5),
        earlier(TOKEN_REVIEW, EARLIER["token_review"], 9),
    ]
    arrows = observe([{**RECORD, **EARLIER}], [*reviews, CREATE, CREATE_VMI])
    assert {(arrow.number, arrow.title) for arrow in arrows if arrow.observed} == ALL
    after = [arrow.after.total_seconds() for arrow in arrows if arrow.after is not None]
    assert after == pytest.approx([0, 9 - 12.940790, 3.5 - 12.940790, 0, 0, 1])


def test_an_earlier_token_review_goes_with_a_review_of_its_own() -> None:
    record = {**RECORD, "token_review": EARLIER["token_review"]}
    events = [earlier(TOKEN_REVIEW, EARLIER["token_review"], 9), *EVENTS[1:]]
    arrows = observe([record], events)
    assert {(arrow.number, arrow.title) for arrow in arrows if arrow.observed} == ALL
    after = [arrow.after.total_seconds() for arrow in arrows if arrow.after is not None]
    assert after == pytest.approx([0, 9 - 11.940790, 0, 1, 1, 2])


# The write reached the kube-apiserver at 12.940790, and its request took 24.887 ms.
@pytest.mark.parametrize(("second", "is_proof"), [(2.92, True), (2.91, False), (12.94, True), (12.95, False)])
def test_a_review_proves_as_long_as_it_holds_and_not_what_came_before_it(second: float, is_proof: bool) -> None:
    events = [earlier(ACCESS_REVIEW, EARLIER["access_review"], second), TOKEN_REVIEW, CREATE, CREATE_VMI]
    events.sort(key=lambda each: str(each["requestReceivedTimestamp"]))
    record = {**RECORD, "access_review": EARLIER["access_review"]}
    assert (observed([record], events) == ALL) == is_proof


def test_a_review_that_the_record_does_not_name_proves_nothing() -> None:
    assert observed([{**RECORD, **EARLIER}], EVENTS) == ALL - {TOKEN, ACCESS}


def lines(*contents: Event, compact: bool = True) -> str:
    return "".join(json.dumps(each, separators=(",", ":") if compact else None) + "\n" for each in contents)


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    audit_log, access_log = tmp_path / "audit.log", tmp_path / "access.log"
    audit_log.write_text(lines(*EVENTS[:-1]))
    access_log.write_text(lines(RECORD, compact=False))
    return audit_log, access_log


@pytest.mark.anyio
async def test_the_logs_of_one_request_among_others_prove_it(logs: tuple[Path, Path]) -> None:
    others = [
        changed(TOKEN_REVIEW, auditID="f" * 32 + "-tokenreview"),
        changed(ACCESS_REVIEW, auditID=f"{ID}-another"),
        changed(TOKEN_REVIEW, responseStatus={"code": 403}),
    ]
    logs[0].write_text(lines(*others, *EVENTS))
    with closing(Records(*logs)) as records:
        arrows = await Evidence(cast("KubeClient", None), records).observe_create_sequence(EVIDENCE)
        assert {(arrow.number, arrow.title) for arrow in arrows if arrow.observed} == ALL
        writes = records.of_machine(NAMESPACE, "test-vm", review_ids(ID, []))
        assert [write.audit_id for write in writes] == [each["auditID"] for each in EVENTS]


@pytest.mark.anyio
@pytest.mark.parametrize(("milliseconds", "last"), [(200, VMI), (0, STORE)])
async def test_late_lines_are_waited_for_as_long_as_there_is_time(
    logs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, milliseconds: int, last: tuple[int, str]
) -> None:
    """The audit log's last line is written once somebody has looked for it."""

    def look_and_write(request_id: str) -> list[AccessRecord]:
        found = of_request(request_id)
        with logs[0].open("a") as log:
            log.write(lines(EVENTS[-1]))
        return found

    monkeypatch.setattr(evidence, "COMPLETE_WITHIN", timedelta(milliseconds=milliseconds))
    monkeypatch.setattr(evidence, "FIRST_PAUSE", timedelta(milliseconds=1))
    with closing(Records(*logs)) as records:
        of_request = records.of_request
        monkeypatch.setattr(records, "of_request", look_and_write)
        arrows = await Evidence(cast("KubeClient", None), records).observe_create_sequence(EVIDENCE)
    assert [(arrow.number, arrow.title) for arrow in arrows if arrow.observed][-1] == last
