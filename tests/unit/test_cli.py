"""The command line as a user has it: another process, its exit code and what it prints."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_endpoints import ENDPOINTS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state home"


def virtflow(state: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("VIRTFLOW_")}
    env = own | {"VIRTFLOW_STATE_HOME": str(state), "COLUMNS": "400", "NO_COLOR": "1", **environment}
    command = [sys.executable, "-m", "virtflow", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=env)


def assert_one_paragraph(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    paragraph = result.stderr.strip()
    assert paragraph
    assert "\n\n" not in paragraph
    return paragraph


def test_help_names_every_command(state: Path) -> None:
    result = virtflow(state, "--help")
    assert result.returncode == 0
    for command in ("up", "status", "logs", "down", "e2e", "load", "journey", "bench", "doctor"):
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
    assert assert_one_paragraph(virtflow(state, *arguments)) == "No cluster is up. Type `make up` to start one."


def test_down_without_a_cluster_is_fine(state: Path) -> None:
    result = virtflow(state, "down")
    assert (result.returncode, result.stderr) == (0, "")
    assert "✓ Taking down cluster local" in result.stdout
    assert not state.exists()


def test_a_toolchain_folder_that_lacks_programs_is_one_paragraph(state: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = virtflow(state, "up", VIRTFLOW_TOOLCHAIN=str(tmp_path / "empty"))
    assert assert_one_paragraph(result).startswith(f"The toolchain folder {tmp_path / 'empty'} lacks etcd,")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CLUSTER", "../elsewhere"), ("CLUSTER", ""), ("NODES", "many"), ("NODES", "0"), ("KEEP", "x")],
)
def test_a_setting_that_cannot_be_is_named_with_its_variable(state: Path, variable: str, value: str) -> None:
    result = virtflow(state, "down", **{f"VIRTFLOW_{variable}": value})
    assert f"VIRTFLOW_{variable} is {value!r}: " in assert_one_paragraph(result)


@pytest.fixture
def stopped(state: Path) -> Path:
    """A cluster whose machine was switched off: its folder is there, its processes are not."""
    folder = state / "local"
    (folder / "logs").mkdir(parents=True)
    (folder / "endpoints.json").write_text(json.dumps(dataclasses.asdict(ENDPOINTS), default=str))
    (folder / "supervisord.pid").write_text(str(os.getpid()))
    (folder / "supervisord.conf").write_text("[program:etcd]\ncommand=etcd\n[program:worker]\ncommand=worker\n")
    return folder


def test_status_of_a_cluster_that_does_not_run_ends_with_1(state: Path, stopped: Path) -> None:
    result = virtflow(state, "status")
    assert result.returncode == 1
    rows = [row.split()[:2] for row in result.stdout.splitlines()]
    assert rows[0] == ["COMPONENT", "STATE"]
    assert ["etcd", "STOPPED"] in rows
    assert "Traceback" not in result.stderr
    assert stopped.exists()


def test_the_log_of_an_unknown_component_is_an_error_that_names_the_known(state: Path, stopped: Path) -> None:
    assert assert_one_paragraph(virtflow(state, "logs", "kubelet")) == (
        "There is no component 'kubelet'. There are: etcd, worker."
    )
    assert stopped.exists()


def test_the_log_of_a_component_that_has_not_written_yet_is_an_error(state: Path, stopped: Path) -> None:
    log = stopped / "logs" / "etcd.log"
    assert str(log) in assert_one_paragraph(virtflow(state, "logs", "etcd"))
    log.write_bytes(b"a line\n\xff another\n")
    result = virtflow(state, "logs", "etcd")
    assert (result.returncode, result.stdout) == (0, "a line\n\ufffd another\n")


def test_down_removes_what_is_left_and_harms_no_stranger(state: Path, stopped: Path) -> None:
    # The pid file names this very process.
    assert virtflow(state, "down").returncode == 0
    assert not stopped.exists()
