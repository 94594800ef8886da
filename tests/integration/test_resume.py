"""`virtflow e2e` killed with SIGKILL and resumed, on the one cluster: in a create, between scenarios, in the cleanup,
and in a load. What the steps did is read from the audit log: each create once."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import anyio
import anyio.to_thread
import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle

from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from clusters.supervisor import Supervisor
from virtflow.exit_codes import ExitCode
from virtflow.runs import Run
from virtflow.settings import Settings
from virtflow.temporal import TASK_QUEUE, connect
from workflows.models import ScenarioOrder
from workflows.scenario import Scenario

ROOT = Path(__file__).parents[2]
PATIENCE = timedelta(minutes=5)
IDLE = timedelta(seconds=30)
"""Long enough for the worker to be stopped before."""
CREATED_ONCE = ("virtualmachines", "virtualmachineinstancereplicasets")


class Runner:
    """One process of `virtflow e2e` that runs, or resumes, on a cluster that stays."""

    def __init__(self, settings: Settings, home: Path, *arguments: str) -> None:
        own = {key: value for key, value in os.environ.items() if not key.startswith("VIRTFLOW_")}
        env = {
            **own,
            "VIRTFLOW_STATE_HOME": str(settings.state_home),
            "VIRTFLOW_CLUSTER": settings.cluster,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        self._output = home / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "virtflow", "e2e", *arguments],
                cwd=home,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    def kill_when(self, holds: Callable[[], bool]) -> None:
        self.wait_until(holds)
        self.process.kill()
        self.process.wait()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE.total_seconds()
        while not holds():
            assert self.process.poll() is None, f"It ended before it could be killed: {self.said}"
            assert time.monotonic() < deadline, f"It never came so far: {self.said}"
            time.sleep(0.02)

    def ended(self) -> int:
        return self.process.wait(2 * PATIENCE.total_seconds())


class Story:
    """A run from its begin to its end, over all of its runners."""

    def __init__(self, settings: Settings, cluster: LocalCluster, home: Path) -> None:
        self._settings = settings
        self._cluster = cluster
        self._audit_log = cluster.endpoints().audit_log
        self._since = self._audit_log.stat().st_size
        self._home = home
        self._runner: Runner | None = None

    @property
    def report(self) -> Path:
        (folder,) = (self._home / "reports").iterdir()
        return folder

    def begin(self, words: str) -> Runner:
        self._runner = Runner(self._settings, self._home, "--feature", words)
        self._runner.wait_until(lambda: any(self._home.glob("reports/*/run.json")))
        return self._runner

    def resume(self) -> Runner:
        self._runner = Runner(self._settings, self._home, "--resume", self.report.name)
        return self._runner

    def stop(self) -> None:
        if self._runner is not None:
            self._runner.process.kill()
            self._runner.process.wait()

    def creates(self) -> Counter[str]:
        """What was created for this run, and how often."""
        with self._audit_log.open() as lines:
            lines.seek(self._since)
            events = [json.loads(line) for line in lines if '"code":201' in line and line.endswith("\n")]
        made = [event["responseObject"] for event in events if event["objectRef"]["resource"] in CREATED_ONCE]
        return Counter(
            f"{each['kind']} {each['metadata']['namespace']}/{each['metadata']['name']}"
            for each in made
            if each["metadata"].get("labels", {}).get("virtflow.io/run") == self.report.name
        )

    def load_began(self) -> bool:
        return any(len(log.read_text().splitlines()) > 3 for log in self._load_logs())

    def begins_of_load(self) -> list[bool]:
        """Of each begin, whether it was one after a death of Locust's."""
        lines = [json.loads(line) for log in self._load_logs() for line in log.read_text().splitlines()]
        return [line["restarted"] for line in lines if "restarted" in line]

    def _load_logs(self) -> list[Path]:
        return list((self._cluster.folder / "load").glob(f"{self.report.name}*/progress.jsonl"))


@pytest.fixture
def story(settings: Settings, cluster: LocalCluster, tmp_path: Path) -> Iterator[Story]:
    story = Story(settings, cluster, tmp_path)
    yield story
    story.stop()


def test_killed_in_a_create_between_scenarios_and_in_the_cleanup(story: Story, endpoints: Endpoints) -> None:
    runner = story.begin("A tenant creates a virtual machine")
    runner.kill_when(lambda: any(made.startswith("VirtualMachine ") for made in story.creates()))

    was_under_way = bool(Run.load(story.report).unfinished)

    runner = story.resume()
    runner.kill_when(lambda: "Scenario: The fields running and runStrategy exclude each other" in runner.said)
    [create] = [line for line in runner.said.splitlines() if 'virtual machine of "test-vm.yaml"' in line] or [""]
    # On a machine that is slow enough, the scenario had ended before its runner could be killed.
    assert create.endswith(("taken up", "resumed")) == was_under_way, runner.said

    runner = story.resume()
    runner.kill_when(lambda: '✓ And "tenant-a" has the virtual machine "test-vm"' in runner.said)
    assert "Scenario: A virtual machine that a tenant creates runs\n    ✓ finished before" in runner.said

    runner = story.resume()
    assert runner.ended() == ExitCode.PASSED, runner.said
    assert "7 of 7 scenarios passed." in runner.said
    assert "✓ Everything the scenarios made is gone" in runner.said
    tests = ET.parse(story.report / "junit.xml").findall(".//testcase")
    assert [list(test) for test in tests] == [[]] * 8
    creates = story.creates()
    assert sum(made.startswith("VirtualMachine ") for made in creates) == 3
    assert set(creates.values()) == {1}, creates


def test_killed_in_a_load_which_goes_on(story: Story, endpoints: Endpoints) -> None:
    runner = story.begin("A replica set follows its load")
    runner.kill_when(story.load_began)

    runner = story.resume()

    assert runner.ended() == ExitCode.PASSED, runner.said
    [load] = [line for line in runner.said.splitlines() if "When 28 users send" in line]
    assert load.endswith("taken up")
    assert "the worker ended under its load, and the next one took it up, as it was" in runner.said
    assert story.begins_of_load() == [False]
    assert set(story.creates().values()) == {1}, story.creates()


@pytest.mark.anyio
async def test_who_resumes_a_session_before_the_worker_is_back_is_ahead_of_its_idle_timer(
    cluster: LocalCluster, endpoints: Endpoints
) -> None:
    temporal = await connect(endpoints)
    order = ScenarioOrder("run", "feature", "scenario", {}, IDLE)
    session = await temporal.start_workflow(Scenario.run, order, id=f"idle-{uuid.uuid4()}", task_queue=TASK_QUEUE)
    supervisor = Supervisor(cluster.folder)
    try:
        await session.execute_update(Scenario.list_virtual_machines, "default")
        await anyio.to_thread.run_sync(supervisor.stop_program, "worker")
        with anyio.fail_after(PATIENCE.total_seconds()):
            await until_the_timer_has_fired(session)
        await session.signal(Scenario.resume)
    finally:
        await anyio.to_thread.run_sync(cluster.up)
    with anyio.fail_after(PATIENCE.total_seconds()):
        assert await session.execute_update(Scenario.list_virtual_machines, "default") == []
        await session.signal(Scenario.end)
        assert await session.result() == []


async def until_the_timer_has_fired(session: WorkflowHandle[Scenario, list[str]]) -> None:
    while True:
        events = [event.event_type async for event in session.fetch_history_events()]
        if EventType.EVENT_TYPE_TIMER_FIRED in events:
            return
        await anyio.sleep(0.2)
