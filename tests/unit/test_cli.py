"""The command line as a user has it: another process, its exit code and what it prints."""

import dataclasses
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.unit.checkout_support import ROOT, copy_checkout, virtflow_of
from tests.unit.test_endpoints import ENDPOINTS
from virtflow.cli import except_loopback_from_proxies
from virtflow.exit_codes import ExitCode


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state home"


def virtflow(state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return virtflow_of(ROOT, state, *arguments, **environment)


def assert_one_paragraph(result: subprocess.CompletedProcess[str], code: ExitCode) -> str:
    assert result.returncode == code
    assert "Traceback" not in result.stderr + result.stdout
    paragraph = result.stderr.strip()
    assert paragraph
    assert "\n\n" not in paragraph
    return paragraph


@pytest.mark.parametrize(
    ("upper", "lower", "both"),
    [
        (None, None, "127.0.0.1,localhost"),
        ("corp.example", None, "corp.example,127.0.0.1,localhost"),
        (None, "corp.example", "corp.example,127.0.0.1,localhost"),
        ("a.example, localhost", "b.example,a.example", "a.example,localhost,b.example,127.0.0.1"),
        ("*", None, "*"),
        ("a.example", "*", "*"),
    ],
)
def test_what_is_excepted_from_proxies_stays_so(
    monkeypatch: pytest.MonkeyPatch, upper: str | None, lower: str | None, both: str
) -> None:
    for variable, value in (("NO_PROXY", upper), ("no_proxy", lower)):
        monkeypatch.setenv(variable, value or "")
        if value is None:
            monkeypatch.delenv(variable)
    except_loopback_from_proxies()
    assert (os.environ["NO_PROXY"], os.environ["no_proxy"]) == (both, both)


def test_help_names_every_command(state: Path) -> None:
    result = virtflow(state, "--help")
    assert result.returncode == 0
    commands = "up status logs down e2e runs load journey gc bench torture doctor"
    for command in commands.split():
        assert f" {command} " in result.stdout
    assert not state.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["up", "--nope"],
        ["logs"],
        ["e2e", "extra"],
        ["load", "--users", "none"],
        ["journey", "--tenants", "0"],
        ["gc", "--kubeconfig", "/nowhere"],
        ["torture", "--kills", "0"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(state: Path, arguments: list[str]) -> None:
    result = virtflow(state, *arguments)
    assert result.returncode == 2
    assert "Usage:" in result.stderr
    assert "Traceback" not in result.stderr
    assert not state.exists()


@pytest.mark.parametrize("arguments", [["status"], ["load"]])
def test_without_a_cluster_the_error_says_how_to_get_one(state: Path, arguments: list[str]) -> None:
    assert (
        assert_one_paragraph(virtflow(state, *arguments), ExitCode.INFRASTRUCTURE)
        == "No cluster is up. Type `make up` to start one."
    )


def test_down_without_a_cluster_is_fine(state: Path) -> None:
    result = virtflow(state, "down")
    assert (result.returncode, result.stderr) == (0, "")
    assert "✓ Taking down cluster local" in result.stdout
    assert not state.exists()


def test_a_toolchain_folder_that_lacks_programs_is_one_paragraph(state: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = virtflow(state, "up", VIRTFLOW_TOOLCHAIN=str(tmp_path / "empty"))
    assert assert_one_paragraph(result, ExitCode.INFRASTRUCTURE).startswith(
        f"The toolchain folder {tmp_path / 'empty'} lacks etcd,"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CLUSTER", "../elsewhere"), ("CLUSTER", ""), ("NODES", "many"), ("NODES", "0"), ("KEEP", "x")],
)
def test_a_setting_that_cannot_be_is_named_with_its_variable(state: Path, variable: str, value: str) -> None:
    result = virtflow(state, "down", **{f"VIRTFLOW_{variable}": value})
    assert f"VIRTFLOW_{variable} is {value!r}: " in assert_one_paragraph(result, ExitCode.BAD_INPUT)


@pytest.fixture
def stopped(state: Path) -> Path:
    """A cluster whose machine was switched off: its folder is there, its processes are not."""
    folder = state / "local"
    (folder / "logs").mkdir(parents=True)
    (folder / "endpoints.json").write_text(json.dumps(dataclasses.asdict(ENDPOINTS), default=str))
    (folder / "supervisord.pid").write_text(str(os.getpid()))
    (folder / "supervisord.conf").write_text("[program:etcd]\ncommand=etcd\n[program:worker]\ncommand=worker\n")
    return folder


def test_status_of_a_cluster_that_does_not_run_ends_with_3(state: Path, stopped: Path) -> None:
    result = virtflow(state, "status")
    assert result.returncode == ExitCode.INFRASTRUCTURE
    rows = [row.split()[:2] for row in result.stdout.splitlines()]
    assert rows[0] == ["COMPONENT", "STATE"]
    assert ["etcd", "STOPPED"] in rows
    assert "Traceback" not in result.stderr
    assert stopped.exists()


def test_the_log_of_an_unknown_component_is_an_error_that_names_the_known(state: Path, stopped: Path) -> None:
    assert assert_one_paragraph(virtflow(state, "logs", "kubelet"), ExitCode.BAD_INPUT) == (
        "There is no component 'kubelet'. There are: etcd, worker, supervisord."
    )
    assert stopped.exists()


def test_the_log_of_a_component_that_has_not_written_yet_is_an_error(state: Path, stopped: Path) -> None:
    log = stopped / "logs" / "etcd.log"
    assert str(log) in assert_one_paragraph(virtflow(state, "logs", "etcd"), ExitCode.INFRASTRUCTURE)
    log.write_bytes(b"a line\n\xff another\n")
    result = virtflow(state, "logs", "etcd")
    assert (result.returncode, result.stdout) == (0, "a line\n\ufffd another\n")


def test_down_removes_what_is_left_and_harms_no_stranger(state: Path, stopped: Path) -> None:
    # The pid file names this very process.
    assert virtflow(state, "down").returncode == 0
    assert not stopped.exists()


def test_the_exit_code_is_always_the_same(state: Path) -> None:
    with ThreadPoolExecutor(2) as two:
        results = list(two.map(lambda _: virtflow(state, "status"), range(20)))
    assert [result.returncode for result in results] == [ExitCode.INFRASTRUCTURE] * 20


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(["-v", "status"], "0"), (["status", "-v"], ""), (["status"], "1")],
)
def test_verbose_shows_the_traceback_wherever_it_is_said(state: Path, arguments: list[str], environment: str) -> None:
    result = virtflow(state, *arguments, VIRTFLOW_VERBOSE=environment)
    assert result.returncode == ExitCode.INFRASTRUCTURE
    assert "Traceback (most recent call last)" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["e2e", "--help"]])
def test_help_has_the_exit_codes(state: Path, arguments: list[str]) -> None:
    words = " ".join(virtflow(state, *arguments).stdout.split())
    assert all(f"{code.value} {code.meaning}" in words for code in ExitCode)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path / "a checkout")


def assert_nothing_was_started(state: Path, checkout: Path) -> None:
    assert not state.exists()
    assert not list(checkout.glob("reports/*"))


def test_a_fault_in_a_feature_is_named_before_anything_starts(state: Path, checkout: Path) -> None:
    (checkout / "features" / "mine.feature").write_text("Feature: Mine\nScenario: One\nGiven a moon\nThen it rises\n")
    (checkout / "features" / "worse.feature").write_text("Scenario: One\n")
    result = virtflow_of(checkout, state, "e2e")
    lines = assert_one_paragraph(result, ExitCode.BAD_INPUT).splitlines()
    assert lines[0] == "The features have 3 faults. Nothing was started."
    assert [line.split(": ")[0] for line in lines[1:]] == [
        "  features/mine.feature:3",
        "  features/mine.feature:4",
        "  features/worse.feature:1",
    ]
    assert result.stdout == ""
    assert_nothing_was_started(state, checkout)


def test_words_that_no_scenario_has_are_bad_input(state: Path, checkout: Path) -> None:
    result = virtflow_of(checkout, state, "e2e", "--feature", "nobody's words")
    assert assert_one_paragraph(result, ExitCode.BAD_INPUT).startswith(
        'No scenario has "nobody\'s words" in its name'
    )
    assert_nothing_was_started(state, checkout)


@pytest.mark.parametrize(
    ("file", "where"), [("conftest.py", ""), ("test_features.py", " (tests/e2e/test_features.py:1)")]
)
def test_a_broken_test_is_a_bug_of_virtflow_and_no_traceback(
    state: Path, checkout: Path, file: str, where: str
) -> None:
    (checkout / "tests" / "e2e" / file).write_text("nonsense\n")
    result = virtflow_of(checkout, state, "e2e")
    told = assert_one_paragraph(result, ExitCode.BUG)
    assert told.startswith("virtflow itself failed: NameError: name 'nonsense' is not defined")
    assert where in told
    assert told.endswith("Type it again with -v (make: V=1) for the traceback.")
    assert_nothing_was_started(state, checkout)
    assert "Traceback" in virtflow_of(checkout, state, "e2e", "-v").stderr


def test_a_cluster_that_cannot_come_up_is_infrastructure(state: Path, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = virtflow_of(checkout, state, "e2e", VIRTFLOW_TOOLCHAIN=str(tmp_path / "empty"))
    assert assert_one_paragraph(result, ExitCode.INFRASTRUCTURE).startswith("The toolchain folder")
    assert not state.exists()
