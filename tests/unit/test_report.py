"""A table is in the summary, whole and under its step, and not in the terminal."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.e2e.report import Report
from virtflow.exit_codes import ExitCode


def test_a_table_is_part_of_its_step_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("run", tmp_path)
    report.scenario_starts("run/a-feature/a-scenario", "A feature", "A scenario")
    report.step_starts("Then it is seen", 0)
    report.note("2 cells")
    for title in ("What a can do", "What b can do"):
        report.table(title, ["resource", "get"], [["pods", "✓✓"], ["secrets", "··"]])
    report.step_ends(1, None)
    report.step_starts("And another", 1)
    report.step_ends(2, None)
    report.scenario_reports(cast(Any, SimpleNamespace(duration=2, when="call", passed=True)), None)
    report.write()
    said = capsys.readouterr().out
    assert "2 cells" in said
    assert "What a can do" not in said
    summary = (tmp_path / "summary.md").read_text()
    assert (
        """
- ✓ Then it is seen (1.00s)
  - 2 cells

  What a can do

  | resource | get |
  | --- | --- |
  | pods | ✓✓ |
  | secrets | ·· |

  What b can do

  | resource | get |
  | --- | --- |
  | pods | ✓✓ |
  | secrets | ·· |

- ✓ And another (1.00s)
"""
        in summary
    )


def test_who_takes_a_run_up_knows_what_was_finished_and_what_was_begun(tmp_path: Path) -> None:
    killed = Report("run", tmp_path)
    passed = cast(Any, SimpleNamespace(duration=2, when="call", passed=True))
    failed = cast(Any, SimpleNamespace(duration=3, when="call", passed=False))
    killed.scenario_starts("run/a", "A feature", "A")
    killed.step_starts("Given it is so", 0)
    killed.note("it is")
    killed.table("What it is", ["a"], [["b"]])
    killed.step_ends(1, None)
    killed.scenario_reports(passed, None)
    killed.scenario_starts("run/b", "A feature", "B")
    killed.step_starts("Then it is not so", 0)
    killed.step_ends(1, "It is so.")
    killed.scenario_reports(failed, "It is so.", ExitCode.FAILED)
    killed.scenario_starts("run/c", "A feature", "C")
    killed.step_starts("Given it is so", 0)

    report = Report("run", tmp_path)

    assert [scenario.id for scenario in report.earlier] == ["run/a", "run/b"]
    assert [scenario.words for scenario in report.earlier] == ["", "It is so."]
    assert [scenario.exit_codes for scenario in report.earlier] == [[], [ExitCode.FAILED]]
    assert report.was_begun("run/c")
    assert not report.was_begun("run/a")
    report.scenario_starts("run/c", "A feature", "C")
    report.step_starts("Given it is so", 0)
    report.step_ends(1, None, "taken up")
    report.scenario_reports(passed, None)
    report.write()
    summary = (tmp_path / "summary.md").read_text()
    assert "2 of 3 scenarios passed." in summary
    assert "### ✓ A (2.00s, finished before)\n\n- ✓ Given it is so (1.00s)\n  - it is\n\n  What it is\n" in summary
    assert "### ✗ B (3.00s, finished before)" in summary
    assert "### ✓ C (2.00s)\n\n- ✓ Given it is so (1.00s, taken up)" in summary
    assert [scenario.id for scenario in Report("run", tmp_path).earlier] == ["run/a", "run/b", "run/c"]
