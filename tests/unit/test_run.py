"""What a run comes to: its exit code, what it says, what it leaves. Real but for the cluster and Temporal."""

from pathlib import Path

import pytest

from tests.unit.checkout_support import copy_checkout, virtflow_of
from virtflow.exit_codes import ExitCode

CLUSTER = """
import shutil
from collections import namedtuple

ComponentStatus = namedtuple("ComponentStatus", "name state log")

class LocalCluster:
    name = "fake"

    def __init__(self, settings):
        self.folder = settings.state_home

    def is_up(self):
        return self.folder.exists()

    def up(self):
        print("up", flush=True)
        self.folder.mkdir(exist_ok=True)

    def restart_worker(self):
        print("worker", flush=True)

    def status(self):
        log = self.folder / "etcd.log"
        return [ComponentStatus("etcd", "STOPPED", log)] if (self.folder / "stopped").exists() else []

    def down(self):
        print("down", flush=True)
        shutil.rmtree(self.folder)
"""
SESSION = """

class FakeSession:
    def entered(self, step):
        pass

    def left(self):
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

@given("Ctrl-C")
def interrupted():
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    checkout = copy_checkout(tmp_path / "checkout")
    (checkout / "clusters" / "local" / "__init__.py").write_text(CLUSTER)
    (checkout / "tests" / "e2e" / "steps" / "machines.py").write_text(STEPS)
    with (checkout / "tests" / "e2e" / "conftest.py").open("a") as conftest:
        conftest.write(SESSION)
    for feature in (checkout / "features").glob("*.feature"):
        feature.unlink()
    return checkout


class Ended:
    """A run of scenarios, each a name and its one step."""

    def __init__(self, checkout: Path, scenarios: dict[str, str], *, up: bool = False) -> None:
        text = "".join(f"  Scenario: {name}\n    Given {step}\n" for name, step in scenarios.items())
        (checkout / "features" / "all.feature").write_text("Feature: All\n" + text)
        self.state = checkout / "state"
        if up:
            self.state.mkdir()
        result = virtflow_of(checkout, self.state, "e2e")
        self.code, self.out, self.err = result.returncode, result.stdout, result.stderr
        self.reports = list((checkout / "reports").glob("*/summary.md"))


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
            "virtflow itself failed: KeyError: 'foot' (tests/e2e/steps/machines.py:32). Type it again with -v",
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
