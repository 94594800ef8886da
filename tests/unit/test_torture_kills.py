"""Kills that are carried out: on a real supervisord with small programs."""

import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from clusters.endpoints import ClusterError
from clusters.local import ComponentStatus, LocalCluster
from clusters.supervisor import Program, Supervisor
from virtflow.kube import KubeClient
from virtflow.kube.inventory import Found, Inventory
from virtflow.kube.resources import NAMESPACES, PODS, SECRETS
from virtflow.settings import Settings
from virtflow.torture import checks
from virtflow.torture.checks import left_in_cluster
from virtflow.torture.kills import carry_out
from virtflow.torture.plan import Kill
from virtflow.torture.runner import RUNNER, Runner
from workflows.labels import RUN

pytestmark = pytest.mark.anyio
SLEEPS = "import time; time.sleep(600)"


class SmallCluster:
    """Programs that do nothing, kept as a cluster's are."""

    def __init__(self, folder: Path) -> None:
        self.supervisor = Supervisor(folder)

    def status(self) -> list[ComponentStatus]:
        states = [*self.supervisor.states(), self.supervisor.own_state()]
        return [
            ComponentStatus(each.name, each.state, each.pid, each.restarts, each.description, Path("log"))
            for each in states
        ]

    def await_recovered(self) -> None:
        deadline = time.monotonic() + 60
        while self.supervisor.check():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def pids(self) -> dict[str, int | None]:
        return {each.name: each.pid for each in self.status()}


@pytest.fixture
def small() -> Iterator[SmallCluster]:
    # Not pytest's own: a Unix socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="virtflow-torture-") as folder:
        cluster = SmallCluster(Path(folder))
        try:
            cluster.supervisor.configure([Program(name, [sys.executable, "-c", SLEEPS]) for name in ("one", "two")])
            cluster.supervisor.start()
            yield cluster
        finally:
            cluster.supervisor.stop()


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Settings(), tmp_path)


def kill(number: int, victim: str, *, recovered: bool = True) -> Kill:
    return Kill(number, victim, recovered, timedelta(milliseconds=50))


async def test_each_victim_is_killed_in_its_turn_and_is_another_process_in_the_end(
    small: SmallCluster, runner: Runner
) -> None:
    cluster = cast(LocalCluster, small)
    small.await_recovered()
    before = small.pids()
    plan = [kill(1, "one"), kill(2, "two", recovered=False), kill(3, "crash-watch")]
    said: list[str] = []
    killed = await carry_out(cluster, runner, plan, said.append)
    after = small.pids()
    assert [each.kill for each in killed] == plan
    assert [each.at for each in killed] == sorted(each.at for each in killed)
    assert all(each.back_after > timedelta() for each in killed)
    assert {name for name in before if before[name] != after[name]} == {"one", "two", "crash-watch"}
    assert said == ["kill 1 of 3: one", "kill 2 of 3: two", "kill 3 of 3: crash-watch"]


async def test_what_is_given_up_ends_the_waiting(small: SmallCluster, runner: Runner) -> None:
    broken = Program("broken", [sys.executable, "-c", "raise SystemExit('no such file')"])
    small.supervisor.configure([broken])
    small.supervisor.start()
    plan = [kill(1, "broken", recovered=False)]
    with pytest.raises(ClusterError, match="broken was given up after a kill: "):
        await carry_out(cast(LocalCluster, small), runner, plan, lambda _: None)


class QuickRunner(Runner):
    """Its commands are small programs."""

    def __init__(self, settings: Settings, folder: Path, *, resumes: bool) -> None:
        super().__init__(settings, folder)
        self.resumes = resumes

    def command(self, *options: str) -> list[str]:
        if options[0] == "--resume":
            return [
                sys.executable,
                "-c",
                f"print({options!r}, flush=True); raise SystemExit({0 if self.resumes else 1})",
            ]
        run = "import pathlib; pathlib.Path('reports/the-run').mkdir(parents=True); print('Scenario: x', flush=True)"
        return [sys.executable, "-c", f"{run}; {SLEEPS}"]


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_test_runner_is_killed_in_its_scenario_and_its_run_resumed(
    small: SmallCluster, tmp_path: Path, resumes: bool
) -> None:
    runner = QuickRunner(Settings(), tmp_path, resumes=resumes)
    (killed,) = await carry_out(cast(LocalCluster, small), runner, [kill(1, RUNNER)], lambda _: None)
    assert killed.back_after > timedelta()
    said = tmp_path / "e2e-1" / "said.txt"
    assert said.read_text() == "Scenario: x\n('--resume', 'the-run')\n"
    assert runner.problems == ([] if resumes else [f"{RUNNER} ended with 1; {said} has what it said"])


class ShortRunner(Runner):
    """Its runs have passed before they can be killed."""

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-c", f"print({options!r})"]


async def test_a_test_runner_that_has_ended_before_its_kill_is_told(small: SmallCluster, tmp_path: Path) -> None:
    runner = ShortRunner(Settings(), tmp_path)
    # Once it has ended nobody waits for words that it never said.
    await carry_out(cast(LocalCluster, small), runner, [kill(1, RUNNER)], lambda _: None)
    assert runner.notes == [f"{RUNNER} of e2e-1 had ended before its kill"]
    assert runner.problems == []
    assert "--resume" not in (tmp_path / "e2e-1" / "said.txt").read_text()


async def test_what_has_a_runs_label_or_is_in_a_journeys_namespace_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [
        Found(PODS, {"name": "labelled", "namespace": "x", "labels": {RUN: "r"}}),
        Found(SECRETS, {"name": "inside", "namespace": "tenant-1"}),
        Found(NAMESPACES, {"name": "tenant-1"}),
        Found(NAMESPACES, {"name": "default"}),
    ]
    looks = [Inventory(unseen=["pods (away)"]), Inventory(objects)]

    async def take_inventory(_: KubeClient) -> Inventory:
        return looks.pop(0)

    monkeypatch.setattr(checks, "LOOK_EVERY", timedelta())
    monkeypatch.setattr(checks, "take_inventory", take_inventory)
    left = await left_in_cluster(cast(KubeClient, None), {"tenant-1"})
    assert left == ["Pod x/labelled", "Secret tenant-1/inside", "Namespace tenant-1"]


async def test_kinds_that_nobody_could_look_at_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def take_inventory(_: KubeClient) -> Inventory:
        raise TimeoutError

    monkeypatch.setattr(checks, "ANSWERS_WITHIN", timedelta())
    monkeypatch.setattr(checks, "take_inventory", take_inventory)
    left = await left_in_cluster(cast(KubeClient, None), set())
    assert left == ["nobody knows whether there are objects of any kind (TimeoutError)"]
