"""How an account is made of what was written: nothing of it depends on names, times, retries or interleaving."""

import json
import random
import string
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.controller.workqueue import FAILED_TEST
from tests.conformance.causes import CAUSES, too_early
from tests.conformance.course import Memory, course_of, steps_of
from tests.conformance.names import Names
from tests.conformance.records import AGENT, Record, actor_of, by_user_writes, record_of_change, record_of_event
from virtflow.kube import Object

CONTROLLER = ("system:serviceaccount:kubevirt:kubevirt-controller", "virt-controller")
HANDLER = ("system:serviceaccount:kubevirt:kubevirt-handler", "virt-handler")
SCHEDULER = ("system:kube-scheduler", "kube-scheduler/v1.36.3 (linux/amd64) kubernetes/scheduler")
KWOK = ("system:kwok-controller", "kwok/v0.8.0 (linux/amd64)")
USER = ("virtflow-admin", AGENT)
PLURALS = {"VirtualMachineInstance": "virtualmachineinstances", "Pod": "pods", "VirtualMachine": "virtualmachines"}
NOT_RUNNING = {"type": "Ready", "status": "False", "reason": "GuestNotRunning", "message": "not yet"}


class Log:
    """An audit log in the making, of one machine's instance under names and uids of its own."""

    def __init__(self, seed: int = 0) -> None:
        draw = random.Random(seed)
        self.drawn = "".join(draw.choices(string.ascii_lowercase + string.digits, k=5))
        self.uids = {kind: str(uuid.UUID(int=draw.getrandbits(128))) for kind in PLURALS}
        self.names = dict.fromkeys(PLURALS, "test-vm") | {"Pod": f"virt-launcher-test-vm-{self.drawn}"}
        self.version = draw.randrange(1000)
        self.lines: list[bytes] = []

    def write(
        self, who: tuple[str, str], verb: str, kind: str, *, code: int = 200, sub: str = "", **more: Any
    ) -> None:
        self.version += 1
        meta = {"name": self.names[kind], "uid": self.uids[kind], "resourceVersion": str(self.version)}
        message = more.pop("message", "")
        answer = {"kind": kind, "metadata": meta | more.pop("meta", {}), "status": more.pop("status", {})}
        if code >= 400 or sub == "binding":
            answer = {"kind": "Status", "metadata": {}, "message": message}
        event = {
            "kind": "Event",
            "level": more.pop("level", "RequestResponse"),
            "stage": more.pop("stage", "ResponseComplete"),
            "verb": verb,
            "user": {"username": who[0]},
            "userAgent": who[1],
            "objectRef": {"resource": PLURALS[kind], "name": self.names[kind], "subresource": sub},
            "responseStatus": {"code": code} | ({"message": message} if message else {}),
            "requestReceivedTimestamp": f"2026-11-23T06:{len(self.lines) // 60:02}:{len(self.lines) % 60:02}.000000Z",
            "responseObject": answer,
            "requestObject": more.pop("patch", None),
        }
        assert not more
        self.lines.append(json.dumps(event).encode())

    def records(self) -> list[Record]:
        return [record for line in self.lines if (record := record_of_event(line))]


def start(log: Log) -> Log:
    """An instance and its pod, from nothing to Running."""
    log.write(CONTROLLER, "create", "VirtualMachineInstance", code=201, status={"phase": "Pending"})
    log.write(CONTROLLER, "create", "Pod", code=201)
    log.write(SCHEDULER, "create", "Pod", code=201, sub="binding")
    status = {"phase": "Scheduling", "conditions": [NOT_RUNNING]}
    log.write(CONTROLLER, "update", "VirtualMachineInstance", status=status)
    log.write(KWOK, "patch", "Pod", sub="status", patch={"status": {"phase": "Running"}})
    log.write(CONTROLLER, "update", "VirtualMachineInstance", status=status | {"phase": "Scheduled"})
    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    log.write(HANDLER, "update", "VirtualMachineInstance", status=running)
    return log


def account(records: list[Record]) -> list[Object]:
    names = Names("tenant", ["node-1"])
    return course_of(steps_of(records, Memory(names)), names)


STARTED = [
    {
        "object": "Pod virt-launcher-test-vm-*",
        "life": ["virt-controller creates", "scheduler binds"],
        "phase": ["node Running"],
    },
    {
        "object": "VirtualMachineInstance test-vm",
        "Ready": ["virt-controller False (GuestNotRunning): not yet", "virt-handler True"],
        "life": ["virt-controller creates"],
        "phase": [
            "virt-controller Pending",
            "virt-controller Scheduling",
            "virt-controller Scheduled",
            "virt-handler Running",
        ],
    },
]


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_names_uids_and_versions_are_of_no_account(seed: int) -> None:
    assert account(start(Log(seed)).records()) == STARTED


PATCH = [
    {"op": "test", "path": "/metadata/labels", "value": {}},
    {"op": "replace", "path": "/metadata/labels", "value": {"app": "test"}},
]
INVALID = 'VirtualMachineInstance.kubevirt.io "test-vm" is invalid: metadata.labels: Invalid value'


@given(st.data(), st.sampled_from([(404, "", None), (409, "", None), (409, "", PATCH), (422, FAILED_TEST, PATCH)]))
@settings(max_examples=30)
def test_lost_races_are_of_no_account(data: st.DataObject, lost: tuple[int, str, object]) -> None:
    code, message, patch = lost
    log, tried = start(Log()), Log()
    verb = "patch" if patch else "update"
    tried.write(CONTROLLER, verb, "VirtualMachineInstance", code=code, message=message, patch=patch)
    at = data.draw(st.integers(0, len(log.lines)))
    log.lines.insert(at, tried.lines[0])
    assert account(log.records()) == STARTED


@pytest.mark.parametrize(
    ("verb", "message", "patch"),
    [
        ("patch", INVALID, PATCH),
        ("patch", FAILED_TEST, {"metadata": {"labels": {"app": "test"}}}),
        ("update", INVALID, None),
    ],
)
def test_what_the_kube_apiserver_finds_invalid_is_told(verb: str, message: str, patch: object) -> None:
    log = start(Log())
    log.write(CONTROLLER, verb, "VirtualMachineInstance", code=422, message=message, patch=patch)
    (_, instance) = account(log.records())
    assert instance["life"] == ["virt-controller creates", f"virt-controller fails to {verb} it (422)"]


@given(st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_how_the_writes_to_two_objects_interleave_is_of_no_account(chance: random.Random) -> None:
    records = start(Log()).records()
    pods, others = ([each for each in records if (each.kind == "Pod") is yes] for yes in (True, False))
    woven = []
    while pods or others:
        woven.append((pods if pods and (not others or chance.random() < 0.5) else others).pop(0))
    moved = [Record(**{**vars(record), "at": float(at)}) for at, record in enumerate(woven)]
    assert account(moved) == STARTED


def test_what_is_written_twice_or_changes_nothing_is_no_step() -> None:
    log = start(Log())
    log.lines += log.lines[-1:]
    assert account(log.records()) == STARTED


def test_the_order_of_versions_is_that_of_effect() -> None:
    """A write may arrive before another and be written after it."""
    log = start(Log())
    log.lines[3], log.lines[5] = (
        line.replace(old, new)
        for line, old, new in ((log.lines[5], b":05.", b":03."), (log.lines[3], b":03.", b":05."))
    )
    assert account(log.records()) == STARTED


def test_a_phase_nobody_expected_is_told() -> None:
    log = start(Log())
    log.write(HANDLER, "update", "VirtualMachineInstance", status={"phase": "Unknown"})
    (_, instance) = account(log.records())
    assert instance["phase"][-1] == "virt-handler Unknown"
    assert instance["Ready"][-1] == "virt-handler absent"


def test_a_stranger_is_told_even_if_nothing_came_of_it() -> None:
    log = start(Log())
    log.write(("mallory", "curl/8.5"), "patch", "Pod", patch={"metadata": {"labels": {"app": "mine"}}})
    (pod, _) = account(log.records())
    assert pod["strangers"] == ["mallory (curl) writes"]


def test_what_is_meant_for_kwok_is_of_no_account() -> None:
    log = start(Log())
    annotations = {"kwok.x-k8s.io/usage-cpu": "900m"}
    log.write(
        ("system:serviceaccount:x:guests", "guests"), "patch", "Pod", patch={"metadata": {"annotations": annotations}}
    )
    assert account(log.records()) == STARTED


def test_what_a_patch_does_to_metadata_is_told() -> None:
    log = Log()

    def patch(path: str, old: object, new: object) -> list[Object]:
        return [{"op": "test", "path": path, "value": old}, {"op": "replace", "path": path, "value": new}]

    log.write(CONTROLLER, "patch", "VirtualMachine", patch=patch("/metadata/finalizers", None, ["keep"]))
    log.write(CONTROLLER, "patch", "VirtualMachine", patch=patch("/metadata/finalizers", ["keep"], []))
    log.write(CONTROLLER, "patch", "Pod", patch=patch("/metadata/labels", {"a": "1"}, {"a": "1", "node": "node-1"}))
    log.write(
        CONTROLLER, "patch", "VirtualMachineInstance", patch=patch("/metadata/annotations", {"g": "1"}, {"g": "2"})
    )
    log.write(USER, "patch", "VirtualMachine", patch={"spec": {"runStrategy": "Halted"}})
    assert account(log.records()) == [
        {"object": "Pod virt-launcher-test-vm-*", "label node": ["virt-controller adds"]},
        {
            "object": "VirtualMachine test-vm",
            "finalizer keep": ["virt-controller adds", "virt-controller removes"],
            "spec": ["user sets runStrategy=Halted"],
        },
        {"object": "VirtualMachineInstance test-vm", "annotation g": ["virt-controller sets to 2"]},
    ]


def test_an_update_that_takes_a_finalizer_away_is_told() -> None:
    log = start(Log())
    log.lines.clear()
    log.write(CONTROLLER, "create", "VirtualMachineInstance", code=201, meta={"finalizers": ["one", "two"]})
    log.write(CONTROLLER, "update", "VirtualMachineInstance", meta={"finalizers": ["two"]})
    assert account(log.records())[0]["finalizer one"] == ["virt-controller removes"]


def test_what_is_refused_again_and_again_is_told_once() -> None:
    records = []
    for seed in range(3):
        log = Log(seed)
        log.write(
            CONTROLLER, "create", "Pod", code=403, message=f'pods "{log.names["Pod"]}" is forbidden: exceeded quota'
        )
        records += log.records()
    assert account(records) == [
        {"object": "Pod virt-launcher-test-vm-*", "life": ["virt-controller fails to create it (403)"]}
    ]


def test_counts_are_told_by_their_turns() -> None:
    kind = "VirtualMachineInstanceReplicaSet"
    records = [
        Record(at, "virt-controller", "update", kind, "test-vmirs", "status", state={"replicas": str(count)})
        for at, count in enumerate([1, 2, 3, 2, 1, 2])
    ]
    assert account(records)[0]["replicas"] == [
        "virt-controller 0 to 3",
        "virt-controller 3 to 1",
        "virt-controller 1 to 2",
    ]


def test_every_effect_before_its_cause_is_found() -> None:
    records = start(Log()).records()
    assert too_early(steps_of(records, Memory(Names("tenant", [])))) == []
    backwards = [Record(**{**vars(record), "at": -record.at, "version": None}) for record in records]
    found = {(step.kind, cause.kind) for step, cause in too_early(steps_of(backwards, Memory(Names("tenant", []))))}
    assert {("Pod", "VirtualMachineInstance"), ("VirtualMachineInstance", "Pod")} <= found


def test_no_moment_causes_itself() -> None:
    assert all(cause != effect for cause, effect in CAUSES)


def test_a_log_without_bodies_is_refused() -> None:
    log = Log()
    log.write(CONTROLLER, "create", "Pod", code=201, level="Metadata")
    with pytest.raises(ValueError, match="RequestResponse"):
        record_of_event(log.lines[0])


def test_reads_and_unanswered_writes_are_of_no_account() -> None:
    log = Log()
    log.write(CONTROLLER, "list", "Pod")
    log.write(CONTROLLER, "create", "Pod", stage="Panic")
    assert log.records() == []


@pytest.mark.parametrize(
    ("user", "agent", "actor"),
    [
        (*CONTROLLER, "virt-controller"),
        (HANDLER[0], "Python", "virt-handler"),
        (
            "system:serviceaccount:kube-system:generic-garbage-collector",
            "kube-controller-manager",
            "garbage-collector",
        ),
        ("kwok-admin", "kube-scheduler", "scheduler"),
        ("kwok-admin", "kwok-controller", "node"),
        ("system:node:worker", "kubelet", "node"),
        ("anyone", AGENT, "user"),
        ("anyone", "kubectl", "anyone (kubectl)"),
    ],
)
def test_actors_are_known_by_user_and_agent(user: str, agent: str, actor: str) -> None:
    assert actor_of(user, agent) == actor


def test_situations_begin_with_the_user_s_writes() -> None:
    at = iter(range(10))

    def record(actor: str) -> Record:
        return Record(next(at), actor, "update", "Pod", "p")

    parts = by_user_writes(map(record, ["node", "user", "node", "node", "user", "user"]))
    assert [[each.actor for each in part] for part in parts] == [["user", "node", "node"], ["user"], ["user"]]


def test_a_watch_tells_states_without_actors() -> None:
    meta = {"name": "test-vm", "uid": "1", "resourceVersion": "1"}
    old = {"kind": "VirtualMachine", "metadata": meta, "status": {"printableStatus": "Stopped"}}
    new = {
        "kind": "VirtualMachine",
        "metadata": {**meta, "resourceVersion": "2"},
        "status": {"printableStatus": "Starting", "created": True},
    }
    assert account([record_of_change(0, None, old), record_of_change(1, old, new)]) == [
        {
            "object": "VirtualMachine test-vm",
            "created": ["yes"],
            "life": ["creates"],
            "printableStatus": ["Stopped", "Starting"],
        }
    ]
