"""What torture plans, what it takes for a fault, and how it tells it: each check must be able to say no."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.supervisor.watch import CrashLoops
from tests.unit.test_audit import event, line
from virtflow.exit_codes import ExitCode
from virtflow.journey_report import Journey
from virtflow.torture.checks import left_on_machine, unlike_one_create
from virtflow.torture.kills import Killed
from virtflow.torture.plan import ALONE, LONGEST_PAUSE, Kill, plan_kills
from virtflow.torture.table import Tortured, lines_of, markdown_of, rows_of, write_result
from virtflow.torture.travel import EVIDENCE, Travelled
from workflows.journey_models import JourneyPhase, TenantJourneyOutcome

VICTIMS = ("etcd", "kube-apiserver", "temporal", "worker", "gateway", "load", *ALONE)
BEGAN = datetime(2026, 11, 23, 10, tzinfo=UTC)
NAMESPACE = "tenant-001-abc"


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@given(st.integers(), st.integers(1, 60), st.sets(st.sampled_from(VICTIMS), min_size=2))
def test_a_seed_is_a_plan_in_which_everybody_has_their_turn(seed: int, count: int, victims: set[str]) -> None:
    plan = plan_kills(seed, count, sorted(victims))
    assert plan == plan_kills(seed, count, sorted(victims, reverse=True))
    assert [kill.number for kill in plan] == list(range(1, count + 1))
    assert {kill.victim for kill in plan[: len(victims)]} <= victims
    turns = [sum(kill.victim == victim for kill in plan) for victim in victims]
    assert max(turns) - min(turns) <= 1
    assert all(timedelta() <= kill.pause <= LONGEST_PAUSE for kill in plan)
    for before, kill in pairwise(plan):
        assert kill.victim != before.victim
        # Of supervisord and its watch, nobody would be left to bring anything back.
        assert kill.recovered or not {kill.victim, before.victim} & set(ALONE)


def test_another_seed_is_another_plan() -> None:
    assert len({tuple(plan_kills(seed, 10, VICTIMS)) for seed in range(20)}) == 20


def test_no_victim_dies_as_often_as_a_crash_loop_does() -> None:
    plan = plan_kills(1, 500, VICTIMS)
    for first in range(len(plan)):
        near = [kill.victim for kill in plan[first : first + 2 * len(VICTIMS)]]
        assert max(near.count(victim) for victim in VICTIMS) < CrashLoops.deaths - 1


def created(
    resource: str, name: str, *, uid: str = "u-1", owner: str = "", code: int = 201, verb: str = "create"
) -> bytes:
    metadata: dict[str, object] = {"name": name, "namespace": NAMESPACE, "uid": uid}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "name": "o", "controller": True}]
    return line(
        event(
            verb=verb,
            objectRef={"resource": resource, "namespace": NAMESPACE, "name": name},
            responseStatus={"code": code},
            responseObject={"metadata": metadata},
        )
    )


MACHINE = created("virtualmachines", "test-vm")
INSTANCE = created("virtualmachineinstances", "test-vm", uid="i-1", owner="u-1")
POD = created("pods", "virt-launcher-test-vm-x", uid="p-1", owner="i-1")
STATUS = created("virtualmachines", "test-vm", verb="update", code=200)


def found(tmp_path: Path, *lines: bytes) -> tuple[list[str], list[str]]:
    log = tmp_path / "audit.log"
    log.write_bytes(b"".join(lines))
    return unlike_one_create(log, {NAMESPACE})


def test_one_machine_one_instance_one_pod_is_what_there_should_be(tmp_path: Path) -> None:
    refused = created("virtualmachines", "test-vm", code=409)
    elsewhere = MACHINE.replace(NAMESPACE.encode(), b"another")
    assert found(tmp_path, MACHINE, refused, INSTANCE, POD, STATUS, elsewhere) == ([], [])


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (MACHINE, f"2 creates of virtualmachines/{NAMESPACE}/test-vm"),
        (INSTANCE, f"2 creates of virtualmachineinstances/{NAMESPACE}/test-vm"),
        (created("pods", "virt-launcher-test-vm-y", uid="p-2", owner="i-1"), f"2 creates of pods/{NAMESPACE}/i-1"),
    ],
)
def test_what_was_created_twice_is_told(tmp_path: Path, again: bytes, said: str) -> None:
    assert found(tmp_path, MACHINE, INSTANCE, POD, again) == ([said], [])


def test_another_machine_in_the_place_of_the_first_is_told(tmp_path: Path) -> None:
    other = created("virtualmachines", "test-vm", uid="u-2", verb="update", code=200)
    assert found(tmp_path, MACHINE, other) == ([f"2 virtual machines called {NAMESPACE}/test-vm"], [])


def test_a_machine_that_never_was_is_told(tmp_path: Path) -> None:
    assert found(tmp_path, INSTANCE) == ([f"no virtual machine in {NAMESPACE}"], [])


def test_a_create_of_which_the_event_got_lost_is_told_from_none(tmp_path: Path) -> None:
    problems, notes = found(tmp_path, MACHINE[: len(MACHINE) // 2], STATUS)
    assert problems == []
    assert notes == [f"the kube-apiserver died between storing {NAMESPACE}/test-vm and saying so"]


def test_a_create_behind_half_a_line_counts(tmp_path: Path) -> None:
    assert found(tmp_path, STATUS[:100] + MACHINE, MACHINE) == (
        [f"2 creates of virtualmachines/{NAMESPACE}/test-vm"],
        [],
    )


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_a_process_that_knows_of_the_folder_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    with running(f"--data-dir={folder}") as process, running(f"{folder}-two/x"):
        (left,) = left_on_machine(folder, [])
    assert left.startswith(f"process {process.pid}: ")
    assert left_on_machine(folder, []) == []


def test_a_folder_and_a_port_are_left(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert left_on_machine(tmp_path / "t", [port]) == []
        server.listen()
        assert left_on_machine(tmp_path, [port]) == [f"the folder {tmp_path}", f"somebody listens on port {port}"]


def journey(number: int, outcome: TenantJourneyOutcome | None, ended: float) -> Travelled:
    told = Journey(f"tenant-{number:03}", f"run/{number}", outcome, problem="" if outcome else "terminated")
    return Travelled(told, f"ns-{number}", BEGAN, BEGAN + seconds(ended))


P = JourneyPhase
WITH_LOAD = TenantJourneyOutcome(
    {
        P.TENANT_CREATED: seconds(1),
        P.VM_ACCEPTED: seconds(1),
        P.VM_RUNNING: seconds(2),
        P.REPLICA_SET_READY: seconds(3),
        P.SCALED_OUT: seconds(10),
        P.SCALED_IN: seconds(5),
        P.GONE: seconds(6),
        P.WHOLE: seconds(30),
    }
)
STUCK = TenantJourneyOutcome(
    {P.TENANT_CREATED: seconds(1), P.VM_ACCEPTED: seconds(1), P.GONE: seconds(6)}, P.VM_RUNNING, "no node had room"
)


@pytest.mark.parametrize(
    ("outcome", "at", "step"),
    [
        (WITH_LOAD, -0.1, None),
        (WITH_LOAD, 0.5, P.TENANT_CREATED),
        (WITH_LOAD, 1.5, P.VM_ACCEPTED),
        (WITH_LOAD, 3, P.VM_RUNNING),
        (WITH_LOAD, 5, EVIDENCE),
        (WITH_LOAD, 7, P.REPLICA_SET_READY),
        (WITH_LOAD, 10, P.SCALED_OUT),
        (WITH_LOAD, 20, P.SCALED_IN),
        (WITH_LOAD, 29, P.GONE),
        (WITH_LOAD, 30, None),
        (STUCK, 1.5, P.VM_ACCEPTED),
        (STUCK, 20, P.VM_RUNNING),
        (STUCK, 29, P.GONE),
        (None, 5, None),
    ],
)
def test_where_a_journey_was_is_told_by_its_own_times(
    outcome: TenantJourneyOutcome | None, at: float, step: str | None
) -> None:
    assert journey(1, outcome, 30).step_at(BEGAN + seconds(at)) == step


def killed(number: int, victim: str, at: float, back_after: float) -> Killed:
    return Killed(Kill(number, victim, True, seconds(1)), BEGAN + seconds(at), seconds(back_after))


RESULT = Tortured(
    [killed(1, "worker", 3, 4), killed(2, "etcd", 20, 5), killed(3, "worker", 20, 6)],
    [journey(1, WITH_LOAD, 30), journey(2, STUCK, 30)],
    problems=["tenant-002 before VM Running: no node had room"],
)


def test_the_table_tells_who_was_killed_where_journeys_were_and_how_they_ended() -> None:
    assert rows_of(RESULT) == [
        ["killed", "times", "back after", "start", "scale in", "journeys"],
        ["etcd", "1", "5.0 s", "1", "1", "1 of 2 failed"],
        ["worker", "2", "6.0 s", "3", "1", "1 of 2 failed"],
        ["all", "3", "6.0 s", "4", "2", "1 of 2 failed"],
    ]


def test_the_table_is_as_wide_as_it_must_be() -> None:
    assert lines_of(RESULT)[:2] == [
        "killed  times  back after  start  scale in       journeys",
        "etcd        1       5.0 s      1         1  1 of 2 failed",
    ]


@pytest.mark.parametrize(
    ("problems", "left", "code"),
    [
        ([], [], ExitCode.PASSED),
        (["2 creates"], [], ExitCode.FAILED),
        ([], ["Pod a/b"], ExitCode.LEFT_BEHIND),
        (["2 creates"], ["Pod a/b"], ExitCode.FAILED),
    ],
)
def test_what_was_wrong_decides_the_exit_code(problems: list[str], left: list[str], code: ExitCode) -> None:
    result = Tortured([], [], problems, left, notes=["etcd died by itself: 1"])
    assert result.code is code


def test_the_report_has_the_seed_the_problems_and_all_of_it_raw(tmp_path: Path) -> None:
    page = markdown_of(RESULT, 7, seconds(60))
    assert page.splitlines()[:3] == [
        "3 kills of seed 7, 2 journeys, 60 s.",
        "",
        "| killed | times | back after | start | scale in | journeys |",
    ]
    assert "- tenant-002 before VM Running: no node had room" in page
    write_result(tmp_path, RESULT, 7, seconds(60))
    assert (tmp_path / "torture.md").read_text() == page
    raw = json.loads((tmp_path / "torture.json").read_text())
    assert [each["kill"]["victim"] for each in raw["killed"]] == ["worker", "etcd", "worker"]
