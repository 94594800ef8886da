"""A run's record and its lock: what others can tell of a run, and who may go on with it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.unit.checkout_support import ROOT
from virtflow.errors import InputError
from virtflow.exit_codes import ExitCode
from virtflow.runs import Run, RunRecord, all_runs, checked_id, digests, journal_lines

BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CODE = {"features/a.feature": "1", "load/b.py": "2"}


def record_of(run_id: str, began: datetime = BEGAN) -> RunRecord:
    return RunRecord(run_id, "local", began, "", stays=False, code=CODE)


@pytest.fixture
def killed(tmp_path: Path) -> Run:
    """By a process that began it, told a child to live on, and killed itself."""
    program = f"""
import os, signal, subprocess, sys
from pathlib import Path
from tests.unit.test_runs import record_of
from virtflow.runs import Run
Run(Path({str(tmp_path)!r}, "r1"), record_of("r1")).begin()
subprocess.Popen(["cat"], stdin=int(sys.argv[1]), close_fds=False)
os.kill(os.getpid(), signal.SIGKILL)
"""
    reader, writer = os.pipe()
    try:
        command = [sys.executable, "-c", program, str(reader)]
        ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, pass_fds=[reader], check=False)
        assert ended.returncode == -9
        run = Run.load(tmp_path / "r1")
        assert run.state == "killed"
        return run
    finally:
        os.close(writer)
        os.close(reader)


@given(st.builds(RunRecord, cluster=st.from_regex("[a-z0-9][a-z0-9-]*", fullmatch=True)))
def test_a_record_is_read_as_it_was_written(record: RunRecord) -> None:
    adapter = TypeAdapter(RunRecord)
    assert adapter.validate_json(adapter.dump_json(record)) == record


def test_a_killed_run_can_be_taken_up_by_one_at_a_time(killed: Run) -> None:
    killed.take_up(CODE)
    other = Run.load(killed.folder)
    assert other.state == "running"
    with pytest.raises(InputError, match=r"^Run r1 is running"):
        other.take_up(CODE)
    killed.release()
    assert other.was_killed
    other.take_up(CODE)
    assert len(other.record.resumed) == 2
    other.release()


def test_a_run_that_ends_while_another_asks_for_it_is_not_taken_up(killed: Run) -> None:
    late = Run.load(killed.folder)
    killed.take_up(CODE)
    killed.note(exit_code=ExitCode.LEFT_BEHIND)
    killed.release()
    with pytest.raises(InputError, match=r"^Run r1 has ended: left behind\."):
        late.take_up(CODE)


def test_what_differs_is_named(killed: Run) -> None:
    other = {"features/a.feature": "9", **{f"load/{number}.py": "3" for number in range(9)}}
    with pytest.raises(InputError) as refused:
        killed.take_up(other)
    assert "Not the same: features/a.feature (changed), load/0.py (new), load/1.py (new)" in str(refused.value)
    assert "load/5.py (new), load/6.py (new), and 3 more." in str(refused.value)
    assert killed.was_killed, "who is refused holds nothing"


def test_a_record_of_another_version_is_said_to_be_one(killed: Run) -> None:
    (killed.folder / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is not what this version of virtflow writes"):
        Run.load(killed.folder)


@pytest.mark.parametrize("cluster", ["../elsewhere", "/home", ".", ""])
def test_a_record_whose_cluster_would_be_another_folder_is_refused(killed: Run, cluster: str) -> None:
    record = json.loads((killed.folder / "run.json").read_text())
    (killed.folder / "run.json").write_text(json.dumps(record | {"cluster": cluster}))
    with pytest.raises(InputError, match="is not what this version of virtflow writes"):
        Run.load(killed.folder)


@pytest.mark.parametrize("run_id", ["", ".", "..", "/", "a b", "reports/.."])
def test_what_is_no_run_is_refused(run_id: str) -> None:
    with pytest.raises(InputError, match="is no run: its id is the name of its folder"):
        checked_id(run_id)


def test_runs_are_listed_newest_first_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        run = Run(tmp_path / f"r{number}", record_of(f"r{number}", BEGAN + timedelta(minutes=number)))
        run.begin()
        run.release()
    (tmp_path / "r4").mkdir()
    (tmp_path / "r3" / "run.json").write_text("{}")
    assert [run.record.id for run in all_runs(tmp_path)] == ["r2", "r1"]


def test_scenarios_are_counted_by_the_journal(killed: Run) -> None:
    assert (killed.finished, killed.unfinished) == (0, [])
    outcomes = {"a": "passed", "b": "failed", "c": "not finished"}
    lines = [json.dumps({"id": scenario, "outcome": outcome}) for scenario, outcome in outcomes.items()]
    (killed.folder / "scenarios.jsonl").write_text("\n".join(lines) + "\n")
    assert (killed.finished, killed.unfinished) == (2, ["c"])


@given(st.text())
@example("so\x85 and\u2028 so\u2029 on")
def test_a_scenario_is_one_line_whatever_went_wrong_in_it(problem: str) -> None:
    with TemporaryDirectory() as folder:
        line = TypeAdapter(dict[str, str]).dump_json({"id": "a", "outcome": "failed", "problem": problem}).decode()
        (Path(folder) / "scenarios.jsonl").write_text(f"{line}\n")
        assert [json.loads(each)["problem"] for each in journal_lines(Path(folder))] == [problem]


def test_all_that_decides_what_a_run_does_is_in_its_digests(tmp_path: Path) -> None:
    for name in ("features/a.feature", "tests/e2e/steps/b.py", "pyproject.toml", "virtflow/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("virtflow/__pycache__/c.pyc", "virtflow/.c.py.swp", "tests/unit/d.py", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    before = digests(tmp_path)
    assert sorted(before) == ["features/a.feature", "pyproject.toml", "tests/e2e/steps/b.py", "virtflow/c.py"]
    (tmp_path / "virtflow" / "c.py").write_text("other")
    assert [name for name, digest in digests(tmp_path).items() if digest != before[name]] == ["virtflow/c.py"]
