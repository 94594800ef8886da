"""A table is in the summary, whole and under its step, and not in the terminal."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.e2e.report import Report


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
    report.scenario_reports(cast(Any, SimpleNamespace(duration=2, when="teardown", passed=True)), None)
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
