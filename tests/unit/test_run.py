"""What a run comes to: its exit code, what it says, what it leaves. Real but for the cluster and Temporal."""

import signal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.unit.checkout_support import copy_checkout, virtflow_of
from virtflow.exit_codes import ExitCode

CLUSTER = """
import os
import shutil
from collections import namedtuple

ComponentStatus = namedtuple("ComponentStatus", "name state log")

class LocalCluster:
    name = "fake"

    def __init__(self, settings):
        self.folder = settings.state_home

    def is_up(self):
        return self.folder.exists()

    def identity(self):
        return "fake-1" if self.is_up() else ""

    def up(self, before_work):
        print("up", flush=True)
        self.folder.mkdir(exist_ok=True)
        if (self.folder / "kill").exists():
            (self.folder / "kill").unlink()
            os.kill(os.getpid(), 9)

    def restart_worker(self):
        print("worker", flush=True)

    def status(self):
        log = self.folder / "etcd.log"
        etcd = "STOPPED" if (self.folder / "stopped").exists() else "RUNNING"
        return [ComponentStatus("etcd", etcd, log), ComponentStatus("worker", "STARTING", log)]

    def down(self):
        print("down", flush=True)
        shutil.rmtree(self.folder)
"""
SESSION = """
class FakeSession:
    resumed = ""

    def entered(self, step):
        pass

    def left(self, kubeconfig):
        return ["namespace fake-1"] if "left" in self.scenario else []

@pytest.fixture
def session(request, sessions):
    session = FakeSession()
    session.scenario = request.node.stash[scenario_key].name
    sessions.append(session)
    yield session
    if "stuck" in session.scenario:
        raise InfrastructureError("Nobody ended it.")

@pytest.fixture(scope="session")
def temporal():
    pass

@pytest.fixture(scope="session")
def endpoints():
    from types import SimpleNamespace
    return SimpleNamespace(kubeconfig=None)

async def left_by(*_):
    return ["Namespace of nobody is there"] if Path("nobody").exists() else []

async def ended_session(temporal, session_id):
    print("ended", session_id.partition("/")[2], flush=True)
"""
STEPS = """
import os, pathlib, signal
from pytest_bdd import given
from virtflow.errors import CancelledError, InfrastructureError, SloMissedError, TimedOutError

@given("it is so")
def so():
    pass

@given("it is not so")
def not_so():
    raise AssertionError("It is not so.")

@given("nobody answers")
def silent():
    raise InfrastructureError("Nobody answers.")

@given("it is late")
def late():
    raise SloMissedError("It is late.")

@given("it does not come")
def does_not_come():
    raise TimedOutError("It did not come.")

@given("somebody cancels it")
def cancelled():
    raise CancelledError("Cancelled.")

@given("the step stumbles")
def stumbles():
    {}["foot"]

@given("the cluster fails")
def breaks():
    pathlib.Path(os.environ["VIRTFLOW_STATE_HOME"], "stopped").touch()
    raise AssertionError("It is not so.")

@given("kill -9, once")
def killed():
    if not pathlib.Path("killed").exists():
        pathlib.Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)

@given("Ctrl-C, and something that no session knows of")
def interrupted_and_left():
    pathlib.Path("nobody").touch()
    interrupted()

@given("Ctrl-C")
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "clusters" / "local" / "__init__.py").write_text(CLUSTER)
    (checkout / "tests" / "e2e" / "steps" / "quotas.py").write_text(STEPS)  # no other steps need it
    with (checkout / "tests" / "e2e" / "conftest.py").open("a") as conftest:
        conftest.write(SESSION)
    for feature in (checkout / "features").glob("*.feature"):
        feature.unlink()
    return checkout


class Ended:
    """A run of scenarios, each a name and its one step; or what went on with one."""

    def __init__(self, checkout: Path, scenarios: dict[str, str], *arguments: str, up: bool = False) -> None:
        if scenarios:
            text = "".join(f"  Scenario: {name}\n    Given {step}\n" for name, step in scenarios.items())
            (checkout / "features" / "all.feature").write_text("Feature: All\n" + text)
        self.checkout = checkout
        self.state = checkout / "state"
        if up:
            self.state.mkdir()
        result = virtflow_of(checkout, self.state, "e2e", *arguments)
        self.code, self.out, self.err = result.returncode, result.stdout, result.stderr
        self.reports = list(checkout.glob("reports/*/summary.md"))

    @property
    def run_id(self) -> str:
        (folder,) = (self.checkout / "reports").iterdir()
        return folder.name

    def resumed(self) -> "Ended":
        return Ended(self.checkout, {}, "--resume", self.run_id)

    def listed(self) -> str:
        """What `virtflow runs` says."""
        return virtflow_of(self.checkout, self.state, "runs").stdout


@pytest.mark.parametrize(
    ("scenarios", "code", "says"),
    [
        ({"one": "it is so", "two": "it is so"}, 0, "2 of 2 scenarios passed."),
        ({"one": "it is so", "two": "it is not so"}, 1, "✗ Given it is not so 0.00s\n      It is not so.\n"),
        ({"one": "it is late", "two": "it is so"}, 5, "      It is late.\n"),
        ({"one": "it does not come", "two": "it is late"}, 6, "      It did not come.\n"),
        ({"one": "it is not so", "two": "it does not come"}, 1, "      It did not come.\n"),
        ({"one": "somebody cancels it", "two": "it is so"}, 130, "      Cancelled.\n"),
        ({"one": "nobody answers", "two": "it is not so"}, 3, "      Nobody answers.\n"),
        ({"one": "the cluster fails"}, 3, "\nNot running: etcd. So it may be the cluster that failed"),
        ({"stuck": "it is so"}, 3, "    ✗ teardown: Nobody ended it.\n"),
        (
            {"left": "it is so"},
            4,
            "✗ Cleanup left something behind: namespace fake-1",
        ),
        ({"left": "it is not so"}, 1, "Cleanup left something behind: namespace fake-1"),
        (
            {"one": "the step stumbles", "two": "nobody answers"},
            70,
            "virtflow itself failed: KeyError: 'foot' (tests/e2e/steps/quotas.py:32). Type it again with -v",
        ),
    ],
)
def test_a_run_ends_with_the_code_of_what_happened(
    checkout: Path, scenarios: dict[str, str], code: int, says: str
) -> None:
    run = Ended(checkout, scenarios)
    assert run.code == code, run.out + run.err
    assert says in run.out
    assert "Traceback" not in run.out + run.err
    assert run.err == ""
    assert not run.state.exists()
    assert len(run.reports) == 1


def test_ctrl_c_in_a_scenario_takes_down_what_was_started(checkout: Path) -> None:
    run = Ended(checkout, {"one": "Ctrl-C", "two": "it is so"})
    assert run.code == ExitCode.INTERRUPTED, run.out + run.err
    assert "down\n ✓ Interrupted: taking down cluster fake" in run.out
    assert "0 of 1 scenarios passed." in run.out
    assert "Scenario: two" not in run.out
    assert run.err == ""
    assert not run.state.exists()


def test_ctrl_c_on_a_cluster_that_stays_waits_until_the_scenarios_are_undone(checkout: Path) -> None:
    run = Ended(checkout, {"left": "Ctrl-C"}, up=True)
    assert run.code == ExitCode.INTERRUPTED, run.out + run.err
    assert "up\nworker\n" in run.out
    assert "Interrupted: undoing what the scenarios made" in run.out
    assert "Cleanup left something behind: namespace fake-1" in run.out + run.err
    assert "down" not in run.out
    assert run.state.exists()


def test_ctrl_c_on_a_cluster_that_stays_says_what_is_there_that_no_session_knew_of(checkout: Path) -> None:
    run = Ended(checkout, {"one": "Ctrl-C, and something that no session knows of"}, up=True)
    assert run.code == ExitCode.INTERRUPTED, run.out + run.err
    assert "Cleanup left something behind: Namespace of nobody is there" in run.out + run.err


KILLED = {"first": "it is so", "second": "it is not so", "third": "kill -9, once", "fourth": "it is so"}


def test_a_killed_run_goes_on_where_it_was_and_reports_all_of_it(checkout: Path) -> None:
    killed = Ended(checkout, KILLED)
    assert killed.code == -signal.SIGKILL
    assert killed.state.exists(), "nobody was there to take the cluster down"
    [_, line, _, hint] = killed.listed().splitlines()
    assert line.split() == [killed.run_id, *line.split()[1:3], "killed", "2", "of", "4"]
    assert f"`virtflow e2e --resume {killed.run_id}`" in hint

    resumed = killed.resumed()

    assert resumed.code == ExitCode.FAILED, resumed.out + resumed.err
    assert f"Run {killed.run_id}: 2 of 4 scenarios were finished." in resumed.out
    assert "Scenario: first\n    ✓ finished before" in resumed.out
    assert "Scenario: second\n    ✗ finished before" in resumed.out
    assert "    ✓ Given kill -9, once" in resumed.out
    assert "Scenario: fourth\n    ✓ Given it is so" in resumed.out
    assert "3 of 4 scenarios passed." in resumed.out
    assert [line for line in resumed.out.splitlines() if line.startswith("ended ")] == [
        "ended all/test_first",
        "ended all/test_second",
    ]
    assert resumed.err == ""
    assert not resumed.state.exists(), "the killed run would have taken the cluster down"
    [summary] = resumed.reports
    assert "2 scenarios were finished before" in summary.read_text()
    tests = ET.parse(summary.with_name("junit.xml")).findall(".//testcase")
    failed = {test.get("name"): [child.tag for child in test] for test in tests}
    assert failed == {
        "test_first": [],
        "test_second": ["failure"],
        "test_third": [],
        "test_fourth": [],
        "test_everything_is_undone": [],
    }
    assert "failed" in resumed.listed().splitlines()[1].split()


def test_a_run_that_is_killed_again_before_it_told_what_was_finished_forgets_nothing(checkout: Path) -> None:
    scenarios = {"first": "it is so", "second": "it is not so", "third": "kill -9, once"}
    killed = Ended(checkout, scenarios)
    (checkout / "state" / "kill").touch()
    assert killed.resumed().code == -signal.SIGKILL
    assert killed.resumed().code == ExitCode.FAILED
    [summary] = (checkout / "reports").glob("*/summary.md")
    assert "2 of 3 scenarios passed." in summary.read_text()


def test_a_run_is_not_resumed_with_other_features(checkout: Path) -> None:
    killed = Ended(checkout, KILLED)
    with (checkout / "features" / "all.feature").open("a") as feature:
        feature.write("  Scenario: fifth\n    Given it is so\n")
    (checkout / "load" / "new.py").touch()
    refused = killed.resumed()
    assert refused.code == ExitCode.BAD_INPUT
    assert "Not the same: features/all.feature (changed), load/new.py (new)." in refused.err
    assert "up" not in refused.out.split()
    assert "killed" in refused.listed().splitlines()[1].split()


def test_a_run_whose_cluster_is_gone_is_not_resumed(checkout: Path) -> None:
    killed = Ended(checkout, KILLED)
    killed.state.rmdir()
    refused = killed.resumed()
    assert refused.code == ExitCode.INFRASTRUCTURE
    assert f"Cluster fake, on which run {killed.run_id} was, is gone" in refused.err
    assert "up" not in refused.out.split()
    listed = refused.listed()
    assert "killed, cluster gone" in listed
    assert "--resume" not in listed


def test_a_run_that_has_ended_is_not_resumed(checkout: Path) -> None:
    ended = Ended(checkout, {"one": "it is not so"})
    refused = ended.resumed()
    assert refused.code == ExitCode.BAD_INPUT
    assert f"Run {ended.run_id} has ended: failed." in refused.err
    assert "There is no run 'other'" in Ended(checkout, {}, "--resume", "other").err


def test_where_no_report_can_be_written_nothing_is_started(checkout: Path) -> None:
    (checkout / "reports").touch()
    refused = Ended(checkout, {"one": "it is so"})
    assert refused.code == ExitCode.BAD_INPUT, refused.err
    assert "No report can be written to " in refused.err
    assert ": Not a directory. Go to a folder that you may write to." in refused.err
    assert "up" not in refused.out.split()
    assert "There is no run 'other'" in Ended(checkout, {}, "--resume", "other").err


def test_an_id_that_is_empty_begins_no_new_run(checkout: Path) -> None:
    refused = Ended(checkout, {"one": "it is so"}, "--resume", "")
    assert refused.code == ExitCode.BAD_INPUT, refused.out
    assert "'' is no run: its id is the name of its folder in reports/." in refused.err
    assert not (checkout / "reports").exists()


def test_an_interrupted_run_is_no_killed_one(checkout: Path) -> None:
    ended = Ended(checkout, {"one": "Ctrl-C"})
    assert "interrupted" in ended.listed().splitlines()[1].split()
    assert f"Run {ended.run_id} has ended: interrupted." in ended.resumed().err
