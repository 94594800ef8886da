"""The exit codes of real runs: each for what it stands for, and always, however often a process ends."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import anyio
import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from clusters.endpoints import Endpoints
from tests.unit.checkout_support import ROOT, copy_checkout
from virtflow.exit_codes import ExitCode
from virtflow.settings import Settings
from virtflow.temporal import connect
from virtflow.terminal import console

LIMIT = 240
"""Seconds, for one command: generous, since machines are slow."""
VM = (ROOT / "features" / "manifests" / "test-vm.yaml").read_text()


class Commands:
    """What is typed, in a checkout, for the cluster of these tests."""

    def __init__(self, settings: Settings, checkout: Path, folder: Path) -> None:
        self._folder = folder
        own = {key: value for key, value in os.environ.items() if not key.startswith("VIRTFLOW_")}
        state, cluster = str(settings.state_home), settings.cluster
        given = {"VIRTFLOW_STATE_HOME": state, "VIRTFLOW_CLUSTER": cluster, "PYTHONPATH": str(checkout)}
        self._environment = {**own, **given, "COLUMNS": "400", "NO_COLOR": "1"}

    def start(self, *arguments: str, module: str = "virtflow") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, module: str = "virtflow") -> tuple[int, str]:
        """Its exit code, and what it said."""
        return ended(self.start(*arguments, module=module))


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        said, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, said


@pytest.fixture(scope="module")
def number(pytestconfig: pytest.Config) -> int:
    return cast(int, pytestconfig.getoption("--exits"))


@pytest.fixture
def commands(settings: Settings, endpoints: Endpoints, tmp_path: Path) -> Commands:
    """Of this checkout."""
    return Commands(settings, ROOT, tmp_path)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """One to be given other features, where a virtual machine has little time to run."""
    checkout = copy_checkout(tmp_path / "checkout")
    for feature in (checkout / "features").glob("*.feature"):
        feature.unlink()
    (checkout / "features" / "manifests" / "huge-vm.yaml").write_text(VM.replace("memory: 1Gi", "memory: 900Gi"))
    return checkout


@pytest.fixture
def runs(settings: Settings, endpoints: Endpoints, checkout: Path) -> Commands:
    return Commands(settings, checkout, checkout)


def describe(checkout: Path, *steps: str, given: str = 'the tenant "tenant-a"') -> None:
    lines = [
        "Feature: Ends",
        "  Scenario: It ends",
        f"    Given {given}",
        *(f"    {each}" for each in steps),
    ]
    (checkout / "features" / "ends.feature").write_text("\n".join(lines) + "\n")


def hurry(checkout: Path, seconds: int) -> None:
    world = checkout / "tests" / "e2e" / "steps" / "world.py"
    text = world.read_text()
    assert "RUNNING_WITHIN = timedelta(seconds=60)" in text
    world.write_text(
        text.replace("RUNNING_WITHIN = timedelta(seconds=60)", f"RUNNING_WITHIN = timedelta({seconds=})")
    )


STEPS = """

@given(phrase("an object that no session knows of"))
def leave_one(session: "Session", endpoints: "Endpoints") -> None:
    import asyncio
    from virtflow.kube import KubeClient
    from virtflow.kube.resources import SECRETS

    async def create():
        async with await KubeClient.connect(endpoints.kubeconfig) as kube:
            await kube.create(SECRETS, {"metadata": {"name": "left-behind", "labels": session.labels}}, "default")

    asyncio.run(create())


@given(phrase("a step that stumbles"))
def stumble(session: "Session") -> None:
    {}["foot"]
"""


def add_steps(checkout: Path) -> None:
    """What no feature says: one step leaves something in the cluster, the other has a bug."""
    with (checkout / "tests" / "e2e" / "steps" / "quotas.py").open("a") as module:
        module.write(STEPS)


CREATE = 'When "tenant-a" creates the virtual machine of "test-vm.yaml"'
CREATE_HUGE = 'When "tenant-a" creates the virtual machine of "huge-vm.yaml"'
REPLICA_SET = 'Given "tenant-a" has the replica set of "test-vmirs.yaml" with the autoscaler of "test-hpa.yaml"'


@pytest.mark.parametrize(
    ("steps", "code", "says"),
    [
        ([CREATE, "Then the gateway answers 409"], ExitCode.FAILED, "The gateway answered 201, not 409"),
        ([CREATE, "Then the virtual machine runs within 0 seconds"], ExitCode.SLO_MISSED, " s, not within 0 s."),
        ([CREATE_HUGE], ExitCode.TIMED_OUT, "did not run within 20 s: 0/3 nodes are available: "),
        (
            [REPLICA_SET, "When 2000 users send 1 request a second each until the replica set has settled"],
            ExitCode.INFRASTRUCTURE,
            "2000 users",
        ),
        (["Then the moon is full"], ExitCode.BAD_INPUT, "Nothing was started."),
    ],
)
def test_a_run_ends_with_the_code_of_its_scenario(
    checkout: Path, runs: Commands, steps: Sequence[str], code: ExitCode, says: str
) -> None:
    describe(checkout, *steps)
    if CREATE_HUGE in steps:
        hurry(checkout, 20)
    assert_end(runs.run("e2e"), code, says)


def test_a_run_that_leaves_something_behind_names_it_and_how_to_remove_it(checkout: Path, runs: Commands) -> None:
    describe(checkout, given="an object that no session knows of")
    add_steps(checkout)
    leftovers = checkout / "virtflow" / "leftovers.py"
    patience = "STALLED_AFTER = timedelta(seconds=60)"
    assert patience in leftovers.read_text()
    leftovers.write_text(leftovers.read_text().replace(patience, "STALLED_AFTER = timedelta(seconds=1)"))
    end = runs.run("e2e")
    [run] = [folder.name for folder in (checkout / "reports").iterdir()]
    removed = runs.run("gc", "--run", run, "--delete")
    words = f"Secret default/left-behind is there: not deleted. `virtflow gc --run {run}` lists all of it."
    assert_end(end, ExitCode.LEFT_BEHIND, words)
    assert_end(removed, ExitCode.PASSED, "Secret")


def test_a_step_that_stumbles_is_a_bug_of_virtflow(checkout: Path, runs: Commands) -> None:
    describe(checkout, given="a step that stumbles")
    add_steps(checkout)
    assert_end(runs.run("e2e"), ExitCode.BUG, "virtflow itself failed: KeyError: 'foot' (tests/e2e/steps/quotas.py:")


def assert_end(end: tuple[int, str], code: ExitCode, says: str) -> None:
    ended_with, said = end
    assert ended_with == code, said
    assert says in said
    assert "Traceback" not in said


async def running_scenario(temporal: Client, reports: Path) -> str:
    """The id of the scenario that waits for its virtual machine, of those whose reports are in the folder."""
    with anyio.fail_after(LIMIT):
        while True:
            async for child in temporal.list_workflows("WorkflowType = 'CreateVirtualMachine'"):
                # Others are of other tests' runs, on the same cluster.
                is_own = (reports / child.id.partition("/")[0]).is_dir()
                if is_own and child.status is WorkflowExecutionStatus.RUNNING:
                    return child.id.rpartition("/")[0]
            await anyio.sleep(0.2)


@pytest.mark.anyio
async def test_a_scenario_that_somebody_cancels_in_temporal_is_no_failure(
    checkout: Path, runs: Commands, endpoints: Endpoints
) -> None:
    describe(checkout, CREATE_HUGE)
    process = runs.start("e2e")
    try:
        temporal = await connect(endpoints)
        await temporal.get_workflow_handle(await running_scenario(temporal, checkout / "reports")).cancel()
    except BaseException:
        process.kill()
        raise
    end = await anyio.to_thread.run_sync(ended, process)
    assert_end(end, ExitCode.INTERRUPTED, "This scenario was cancelled.")


def test_without_a_cluster_it_is_infrastructure(settings: Settings, endpoints: Endpoints, tmp_path: Path) -> None:
    nowhere = Commands(settings.model_copy(update={"state_home": tmp_path}), ROOT, tmp_path)
    assert_end(nowhere.run("load"), ExitCode.INFRASTRUCTURE, "Type `make up`")


def test_a_short_command_that_holds_a_temporal_client_ends_with_its_code(commands: Commands, number: int) -> None:
    # Each code at least once.
    told = [tuple(ExitCode)[each % len(ExitCode)].value for each in range(max(number, len(ExitCode)))]
    ends = [commands.run("ends-with", str(code), module="tests.integration.short_command") for code in told]
    counts = Counter((code, end) for code, (end, _) in zip(told, ends, strict=True))
    console.print(f"\nshort command, {len(told)} exits, (told, ended): {dict(counts)}", markup=False)
    assert [code for code, _ in ends] == told, ends


def test_a_passing_scenario_ends_with_zero(commands: Commands, number: int) -> None:
    ends = [commands.run("e2e", "--feature", "A token that nobody issued opens nothing") for _ in range(number)]
    counts = Counter(code for code, _ in ends)
    console.print(f"\npassing scenario, {number} exits: {dict(counts)}", markup=False)
    assert counts == {ExitCode.PASSED: number}, [said for code, said in ends if code]
