"""What a run says: a line for each step as it ends, and a summary in Markdown when all is over."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from virtflow.terminal import console

__all__ = ["Report"]


@dataclass(frozen=True)
class Table:
    title: str
    header: list[str]
    rows: list[list[str]]

    def lines(self) -> list[str]:
        """As Markdown."""
        rule = ["---"] * len(self.header)
        return ["", self.title, "", *(f"| {' | '.join(row)} |" for row in (self.header, rule, *self.rows))]


@dataclass
class StepRecord:
    text: str
    took: timedelta
    error: str | None
    notes: list[str]
    tables: list[Table]


@dataclass
class ScenarioRecord:
    feature: str
    name: str
    steps: list[StepRecord] = field(default_factory=list)
    outcome: str = "not finished"
    problem: str = ""
    took: timedelta = timedelta()


class Report:
    """Collects what the hooks tell it. With no folder it only prints."""

    def __init__(self, run_id: str, folder: Path | None) -> None:
        self.kubevirt = ""
        """What plays KubeVirt: known when the cluster is up."""
        self._run_id = run_id
        self._folder = folder
        self._scenarios: list[ScenarioRecord] = []
        self._step = ("", 0.0)
        self._notes: list[str] = []
        self._tables: list[Table] = []
        self._left = "It was not checked whether everything the scenarios made is gone."

    def scenario_starts(self, feature: str, name: str) -> None:
        if not self._scenarios or self._scenarios[-1].feature != feature:
            console.print(f"\n[bold]Feature: {_escaped(feature)}[/]")
        console.print(f"\n  [bold]Scenario: {_escaped(name)}[/]")
        self._scenarios.append(ScenarioRecord(feature, name))

    def step_starts(self, text: str, now: float) -> None:
        self._step = text, now

    def note(self, text: str) -> None:
        """A line of evidence, shown under the step that looked at it."""
        self._notes.append(text)

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        """What is too wide for a terminal: under the step in the summary alone."""
        self._tables.append(Table(title, header, rows))

    def step_ends(self, now: float, error: str | None) -> None:
        text, began = self._step
        step = StepRecord(text, timedelta(seconds=now - began), error, self._notes, self._tables)
        self._notes, self._tables = [], []
        self._scenarios[-1].steps.append(step)
        mark = "[green]✓[/]" if error is None else "[red]✗[/]"
        console.print(f"    {mark} {_escaped(text)} [dim]{_seconds(step.took)}[/]")
        for note in step.notes:
            console.print(f"      [dim]{_escaped(note)}[/]")
        if error:
            console.print("      " + error.replace("\n", "\n      "), style="red", markup=False)

    def add_note(self, text: str) -> None:
        """A line about the step that has just ended."""
        self._scenarios[-1].steps[-1].notes.append(text)
        console.print(f"      [dim]{_escaped(text)}[/]")

    def scenario_reports(self, report: pytest.TestReport, problem: str | None) -> None:
        """The outcome of a test's setup, call or teardown: the scenario's own, whichever part fails."""
        scenario = self._scenarios[-1]
        scenario.took += timedelta(seconds=report.duration)
        if report.when == "teardown" and report.passed and scenario.outcome == "not finished":
            scenario.outcome = "passed"
        if problem:
            scenario.outcome = "failed"
            if not any(step.error for step in scenario.steps):
                # What fails in a step was said when it happened.
                scenario.problem = scenario.problem or f"{report.when}: {problem}"
                console.print(f"    [red]✗ {_escaped(scenario.problem)}[/]")

    def cleanup_reports(self, report: pytest.TestReport, problem: str | None) -> None:
        """The outcome of the last test, which sees that everything is undone."""
        if report.when == "call" or problem:
            self._left = problem or ""
            words = _escaped(self._left) or "Everything the scenarios made is gone"
            console.print(f"\n  {'[red]✗[/]' if problem else '[green]✓[/]'} {words} [dim]{report.duration:.2f}s[/]")

    def write(self) -> None:
        if self._folder is None or not self._scenarios:
            return
        passed = sum(scenario.outcome == "passed" for scenario in self._scenarios)
        result = f"{passed} of {len(self._scenarios)} scenarios passed."
        console.print(f"\n{result}")
        lines = [f"# Run {self._run_id}", "", result, ""]
        lines += [f"KubeVirt: {self.kubevirt}", ""]
        feature = None
        for scenario in self._scenarios:
            if scenario.feature != feature:
                feature = scenario.feature
                lines += [f"## {feature}", ""]
            lines += [f"### {_mark(scenario.outcome == 'passed')} {scenario.name} ({_seconds(scenario.took)})", ""]
            for step in scenario.steps:
                lines.append(f"- {_mark(step.error is None)} {step.text} ({_seconds(step.took)})")
                lines += [f"  - {note}" for note in step.notes]
                # A table within a list's item begins where its text does.
                lines += [f"  {line}".rstrip() for table in step.tables for line in table.lines()]
                lines += [""] if step.tables else []
                if step.error:
                    lines += ["", "  ```", *(f"  {line}" for line in step.error.splitlines()), "  ```", ""]
            if scenario.problem and all(step.error is None for step in scenario.steps):
                lines += ["", f"  {scenario.problem}"]
            lines.append("")
        lines += ["## Cleanup", "", self._left or "Everything the scenarios made is gone.", ""]
        (self._folder / "summary.md").write_text("\n".join(lines))


def _mark(good: bool) -> str:
    return "✓" if good else "✗"


def _seconds(took: timedelta) -> str:
    return f"{took.total_seconds():.2f}s"


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
