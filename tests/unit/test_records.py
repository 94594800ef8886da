"""What the index hands out is what anybody would find who reads the whole logs and looks at each line."""

import asyncio
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from temporalio.testing import ActivityEnvironment

from activities.evidence import Evidence
from tests.unit.kube_support import client_of
from tests.unit.log_support import RotatingWriter
from virtflow.sequence import records as module
from virtflow.sequence.records import Records
from workflows.fault_models import OutageEnded, OutageEvidence, OutageRecord

CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"
SCHEDULER = "system:kube-scheduler"
GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"
GUESTS = "system:serviceaccount:kubevirt:guests"
NAMESPACE_CONTROLLER = "system:serviceaccount:kube-system:namespace-controller"

Event = dict[str, Any]


def event(user: str, verb: str, what: str, namespace: str, name: str, **more: Any) -> Event:
    resource, _, subresource = what.partition("/")
    ref = {"resource": resource, "subresource": subresource, "namespace": namespace, "name": name}
    return {
        "kind": "Event",
        "auditID": "an-id",
        "stage": "ResponseComplete",
        "verb": verb,
        "user": {"username": user},
        "objectRef": {key: value for key, value in ref.items() if value},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-11-23T10:00:00.000000Z",
        **more,
    }


def made(uid: str, owner: str = "") -> Event:
    owners = [{"uid": "another"}, {"uid": owner, "controller": True}] if owner else []
    return {"responseObject": {"metadata": {"uid": uid, "ownerReferences": owners}}}


def machine(namespace: str, name: str) -> list[Event]:
    """All that is written of a virtual machine."""
    vm, vmi, pod = f"{namespace}-{name}", f"{namespace}-{name}-vmi", f"{name}-pod"
    return [
        event(GATEWAY, "create", "virtualmachines", namespace, name, **made(vm)),
        event(CONTROLLER, "create", "virtualmachineinstances", namespace, name, **made(vmi, vm)),
        event(CONTROLLER, "create", "pods", namespace, pod, **made(f"{vm}-pod", vmi)),
        event(SCHEDULER, "create", "pods/binding", namespace, pod),
        event(CONTROLLER, "update", "virtualmachineinstances", namespace, name, **made(vmi, vm)),
        event(CONTROLLER, "update", "virtualmachines/status", namespace, name, **made(vm)),
    ]


NAMESPACES, NAMES = ["ns", "ns-2"], ["a", "b"]
NOISE = [
    event(GUESTS, "patch", "pods", "ns", "a-pod", **made("ns-a-pod", "ns-a-vmi")),
    event(CONTROLLER, "create", "controllerrevisions", "ns", "a", **made("r", "ns-a")),
    event(CONTROLLER, "get", "virtualmachines", "ns", "a", **made("ns-a")),
    event(CONTROLLER, "update", "virtualmachines", "ns", "a", **made("ns-a"), responseStatus={"code": 409}),
    event(CONTROLLER, "patch", "virtualmachines", "ns", "a", **made("ns-a"), stage="Panic"),
    event(CONTROLLER, "create", "events", "ns", "a"),
    event("system:admin", "patch", "namespaces", "ns", "ns"),
]
REVIEWS = [
    event(GATEWAY, "create", "tokenreviews", "", "", auditID=f"id-{number}-tokenreview") for number in range(3)
]


def at(second: int, each: Event) -> Event:
    return {**each, "requestReceivedTimestamp": f"2026-11-23T10:00:{second:02}.000000Z"}


def in_any_order(events: list[Event]) -> st.SearchStrategy[list[Event]]:
    """Completed in any order, arrived at any seconds, many in the same; each told from the others by its agent."""
    seconds = st.lists(st.integers(0, 9), min_size=len(events), max_size=len(events))
    return st.tuples(st.permutations(events), seconds).map(
        lambda drawn: [
            at(second, {**each, "requestURI": str(number)})
            for number, (each, second) in enumerate(zip(*drawn, strict=True))
        ]
    )


LOGS = in_any_order(
    [*(each for namespace in NAMESPACES for name in NAMES for each in machine(namespace, name)), *NOISE, *REVIEWS]
)


def lines(events: list[Event]) -> bytes:
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in events)


@contextmanager
def logs() -> Iterator[tuple[RotatingWriter, RotatingWriter, Records]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RotatingWriter(Path(folder) / "audit.log")) as audit_log,
        closing(RotatingWriter(Path(folder) / "access.log")) as access_log,
        closing(Records(audit_log.path, access_log.path)) as records,
    ):
        yield audit_log, access_log, records


def described(each: Event) -> tuple[str, ...]:
    ref = each["objectRef"]
    what = (each["user"]["username"], each["verb"], ref["resource"], ref.get("subresource", ""), ref.get("name", ""))
    return (each["requestReceivedTimestamp"][:19], *what, each["auditID"])


def found(records: Records, *request: Any) -> list[tuple[str, ...]]:
    writes = records.of_machine(*request) if len(request) > 1 else records.of_namespace(*request)
    return [
        (
            f"{write.at:%Y-%m-%dT%H:%M:%S}",
            write.user,
            write.verb,
            write.resource,
            write.subresource,
            write.name,
            write.audit_id,
        )
        for write in writes
    ]


def by_hand(events: list[Event], wanted: Callable[[Event], bool]) -> list[tuple[str, ...]]:
    """By arrival; among equals reviews first, then as the log has them."""

    def order(each: Event) -> tuple[str, bool]:
        return str(each["requestReceivedTimestamp"]), "namespace" in each["objectRef"]

    return [described(each) for each in sorted(filter(wanted, events), key=order)]


def bare(each: Event) -> Event:
    return {key: value for key, value in each.items() if key not in ("requestURI", "requestReceivedTimestamp")}


def is_one_of(events: list[Event]) -> Callable[[Event], bool]:
    wanted = [bare(each) for each in events]
    return lambda each: bare(each) in wanted


@pytest.mark.anyio
@given(LOGS)
async def test_an_index_finds_what_a_look_at_every_line_finds(events: list[Event]) -> None:
    with logs() as (audit_log, _, records):
        audit_log.write(lines(events))
        await records.catch_up()
        for namespace in NAMESPACES:
            everything = [each for name in NAMES for each in machine(namespace, name)]
            assert found(records, namespace) == by_hand(events, is_one_of(everything))
            for name in NAMES:
                own = [*machine(namespace, name), REVIEWS[1]]
                assert found(records, namespace, name, ["id-1-tokenreview", "unknown"]) == by_hand(
                    events, is_one_of(own)
                )
        assert found(records, "nowhere", "a") == found(records, "nowhere") == []


CUTS = st.lists(st.integers(1, 4000), max_size=8)


@pytest.mark.anyio
@settings(max_examples=50)
@given(st.data(), LOGS, CUTS)
async def test_how_the_log_came_about_does_not_matter(
    data: st.DataObject, events: list[Event], cuts: list[int]
) -> None:
    """Written and read in any pieces, rotated between any lines, its writer killed in any of them."""
    with logs() as (audit_log, _, at_once):
        audit_log.write(lines(events))
        await at_once.catch_up()
        expected = [found(at_once, namespace) for namespace in NAMESPACES]
    with logs() as (audit_log, _, records):
        for each in events:
            match data.draw(st.sampled_from(["", "", "", "rotated", "killed", "killed and rotated", "read"])):
                case "rotated":
                    audit_log.rotate()
                case "read":
                    await records.catch_up()
                case "":
                    pass
                case killed:
                    torn = lines([each])
                    audit_log.write(torn[: data.draw(st.integers(1, len(torn) - 2))])
                    if killed == "killed and rotated":
                        audit_log.rotate()
            text = lines([each])
            for cut in cuts:
                audit_log.write(text[:cut])
                text = text[cut:]
                if data.draw(st.booleans()):
                    await records.catch_up()
            audit_log.write(text)
        await records.catch_up()
        assert [found(records, namespace) for namespace in NAMESPACES] == expected


def finalized(namespace: str) -> Event:
    return event(NAMESPACE_CONTROLLER, "update", "namespaces/finalize", namespace, namespace)


def remade(namespace: str) -> Event:
    return event("virtflow-admin", "patch", "namespaces", namespace, namespace, responseStatus={"code": 201})


@pytest.fixture
def few_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMESPACES_KEPT", 2)
    monkeypatch.setattr(module, "REQUESTS_KEPT", 2)
    monkeypatch.setattr(module, "SAME_KEPT", 3)


@pytest.mark.anyio
@pytest.mark.usefixtures("few_kept")
async def test_of_namespaces_that_are_gone_the_latest_are_kept() -> None:
    names = ["first", "second", "third", "fourth"]
    with logs() as (audit_log, _, records):
        audit_log.write(lines([each for name in names for each in machine(name, "a")]))
        # Not yet: the server refused it, or the namespace only began to go.
        refused = {**finalized("fourth"), "responseStatus": {"code": 409}}
        begun = event(NAMESPACE_CONTROLLER, "update", "namespaces/status", "fourth", "fourth")
        audit_log.write(lines([*map(finalized, names[:2]), refused, begun]))
        await records.catch_up()
        assert [len(records.of_namespace(name)) for name in names] == [6, 6, 6, 6]
        audit_log.write(lines([finalized("third")]))
        await records.catch_up()
        assert [len(records.of_namespace(name)) for name in names] == [0, 6, 6, 6]
        assert records.of_machine("first", "a") == []
        audit_log.write(lines([remade("second"), finalized("first"), finalized("fourth")]))
        await records.catch_up()
        assert [len(records.of_namespace(name)) for name in names] == [0, 6, 0, 6]


@pytest.mark.anyio
@pytest.mark.usefixtures("few_kept")
async def test_of_requests_the_latest_are_kept() -> None:
    with logs() as (audit_log, access_log, records):
        audit_log.write(lines(REVIEWS))
        access = {"time": "", "user": "u", "tenant": "t", "namespace": "n", "verb": "get", "code": 200, "verdict": ""}
        access_log.write(lines([{**access, "request_id": name} for name in ("a", "b", "b", "c")]))
        await records.catch_up()
        reviews = [len(records.of_machine("ns", "a", [each["auditID"]])) for each in REVIEWS]
        assert reviews == [0, 1, 1]
        assert [len(records.of_request(name)) for name in ("a", "b", "c", "d")] == [0, 2, 1, 0]


@pytest.mark.anyio
@pytest.mark.usefixtures("few_kept")
async def test_of_requests_of_one_id_the_latest_are_kept_and_they_are_as_late_as_the_last() -> None:
    access = {"time": "", "user": "u", "tenant": "t", "namespace": "n", "verb": "get", "verdict": ""}
    with logs() as (_, access_log, records):
        for code, name in enumerate("aaaaabac", start=200):
            access_log.write(lines([{**access, "request_id": name, "code": code}]))
        await records.catch_up()
        assert [record.code for record in records.of_request("a")] == [203, 204, 206]
        assert [len(records.of_request(name)) for name in "bc"] == [0, 1]


@pytest.mark.anyio
async def test_what_proves_nothing_is_not_kept() -> None:
    with logs() as (audit_log, _, records):
        audit_log.write(lines([*machine("ns", "a"), *NOISE * 100]))
        await records.catch_up()
        assert len(records.of_namespace("ns")) == len(machine("ns", "a"))


@pytest.mark.anyio
async def test_what_cannot_be_read_is_counted_and_named_but_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with logs() as (audit_log, _, records), caplog.at_level(logging.WARNING):
        last = lines(machine("ns", "a")[:1])
        audit_log.write(b"no JSON, but a secret\n" + last[:-30] + last + b"[]\n")
        await records.catch_up()
        assert len(records.of_namespace("ns")) == 1
    said = [each.getMessage() for each in caplog.records]
    assert ["; 0 whole" in said[0], "; 1 whole" in said[1], "; 0 whole" in said[2]] == [True] * 3
    assert [text[-2:] for text in said] == [" 1", " 2", " 3"]
    assert all(str(audit_log.path) in text and "secret" not in text for text in said)


@pytest.mark.anyio
async def test_others_have_their_turn_while_a_long_log_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE", 0)
    with logs() as (audit_log, _, records):
        audit_log.write(lines(NOISE * 10))
        reading = asyncio.create_task(records.catch_up())
        turns = 0
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns >= len(NOISE) * 10


@pytest.mark.anyio
@given(turns=st.integers(0, 30))
async def test_who_is_cancelled_while_reading_leaves_the_rest_to_the_next(turns: int) -> None:
    with logs() as (audit_log, _, records), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE", 0)
        audit_log.write(lines(machine("ns", "a") * 4))
        reading = asyncio.create_task(records.catch_up())
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.gather(records.catch_up(), records.catch_up())
        assert len(records.of_namespace("ns")) == 24


@pytest.mark.anyio
async def test_pods_that_virt_controller_was_refused_are_found_by_their_namespace_and_machine(tmp_path: Path) -> None:
    refused = {"responseStatus": {"code": 403}}
    log = [
        at(7, event(CONTROLLER, "create", "pods", "ns", "virt-launcher-my-vm-abcde", **refused)),
        at(5, event(CONTROLLER, "create", "pods", "ns", "virt-launcher-my-vm-fghij", **refused)),
        at(6, event(CONTROLLER, "create", "pods", "ns", "virt-launcher-my-abcde", **refused)),
        at(6, event(CONTROLLER, "create", "pods", "ns-2", "virt-launcher-my-vm-abcde", **refused)),
        at(6, event(SCHEDULER, "create", "pods", "ns", "virt-launcher-my-vm-abcde", **refused)),
        at(6, event(CONTROLLER, "create", "virtualmachineinstances", "ns", "", **refused)),
        at(6, event(CONTROLLER, "create", "pods", "ns", "a", responseStatus={"code": 409})),
        at(6, event(CONTROLLER, "create", "pods", "ns", "a", **made("u"))),
    ]
    (tmp_path / "audit.log").write_text("".join(json.dumps(each) + "\n" for each in log))
    (tmp_path / "access.log").touch()
    with closing(Records(tmp_path / "audit.log", tmp_path / "access.log")) as records:
        await records.catch_up()
        tries = records.refused_pods("ns")
        assert {launcher: [moment.second for moment in moments] for launcher, moments in tries.items()} == {
            "virt-launcher-my-vm": [5, 7],
            "virt-launcher-my": [6],
        }
        assert records.refused_pods("nowhere") == {}
        assert len(records.of_namespace("ns")) == 1


@pytest.mark.anyio
async def test_a_pod_s_end_is_kept_whoever_brought_it_about() -> None:
    """A node's controller, an eviction, somebody by hand: it is what a recovery begins with."""
    end = event(
        "system:serviceaccount:kube-system:node-controller", "delete", "pods", "ns", "a-pod", **made("p", "i")
    )
    other = event(
        "system:serviceaccount:kube-system:node-controller", "patch", "pods", "ns", "a-pod", **made("p", "i")
    )
    with logs() as (audit_log, _, records):
        audit_log.write(lines([other, end]))
        await records.catch_up()
        assert [(write.verb, write.name) for write in records.of_namespace("ns")] == [("delete", "a-pod")]


@pytest.mark.anyio
async def test_an_outage_is_told_by_what_was_written_before_in_and_after_it() -> None:
    """At its two moments nothing can be told of which came first."""
    began, over = (datetime(2026, 11, 23, 10, 0, second, tzinfo=UTC) for second in (2, 6))
    written = [
        at(1, event(GATEWAY, "create", "virtualmachines", "ns", "a", **made("a"))),
        at(2, event(CONTROLLER, "update", "virtualmachines", "ns", "a", **made("a"))),
        at(4, event(CONTROLLER, "update", "virtualmachines", "ns", "a", **made("a"))),
        at(5, event(CONTROLLER, "update", "virtualmachines", "ns-2", "a", **made("b"))),
        at(7, event(GATEWAY, "create", "virtualmachines", "ns", "c", **made("c"))),
    ]
    with logs() as (audit_log, _, records), tempfile.TemporaryDirectory() as folder:
        audit_log.write(lines(written))
        async with client_of(unasked, Path(folder)) as kube:
            evidence = OutageEvidence("ns", OutageEnded(began, over))
            record = await ActivityEnvironment().run(Evidence(kube, records).observe_outage, evidence)
    assert record == OutageRecord(["a", "c"], 1)


async def unasked(request: web.Request) -> web.StreamResponse:
    raise AssertionError(request.path)
