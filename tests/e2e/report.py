"""What a run says: a line for each step as it ends, and a summary in Markdown when all is over.

A journal has the scenarios as they end, so that whoever takes a killed runner's place neither runs nor forgets them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from virtflow.exit_codes import ExitCode
from virtflow.files import write_whole
from virtflow.runs import JOURNAL, NOT_FINISHED, journal_lines
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
    resumed: str = ""
    """What an earlier runner, which was killed, had of it: empty, "resumed" (its end) or "taken up" (its begin)."""


@dataclass
class ScenarioRecord:
    id: str
    """Of its session."""
    feature: str
    name: str
    steps: list[StepRecord] = field(default_factory=list)
    outcome: str = NOT_FINISHED
    problem: str = ""
    took: timedelta = timedelta()
    exit_codes: list[ExitCode] = field(default_factory=list)
    """Of what went wrong."""
    is_earlier: bool = False
    """Whether a runner finished it that was killed afterwards."""

    @property
    def is_finished(self) -> bool:
        return self.outcome != NOT_FINISHED

    @property
    def words(self) -> str:
        """What went wrong, in a step or outside of any."""
        return next((step.error for step in self.steps if step.error), self.problem)


_JOURNAL_LINE = TypeAdapter(ScenarioRecord)


class Report:
    """Collects what the hooks tell it. With no folder it only prints."""

    def __init__(self, run_id: str, folder: Path | None) -> None:
        self.kubevirt = ""
        """What plays KubeVirt: known when the cluster is up."""
        self._run_id = run_id
        self._folder = folder
        self._scenarios = {scenario.id: scenario for scenario in self._journal()}
        """In their order, by their ids."""
        self._begun = [scenario.id for scenario in self._scenarios.values() if not scenario.is_finished]
        self._feature = ""
        self._step = ("", 0.0)
        self._notes: list[str] = []
        self._tables: list[Table] = []
        self._left = "It was not checked whether everything the scenarios made is gone."

    def _journal(self) -> Iterator[ScenarioRecord]:
        for line in journal_lines(self._folder) if self._folder else []:
            scenario = _JOURNAL_LINE.validate_json(line)
            scenario.is_earlier = scenario.is_finished
            yield scenario

    def _keep(self) -> None:
        if self._folder is not None:
            lines = [_JOURNAL_LINE.dump_json(scenario).decode() for scenario in self._scenarios.values()]
            write_whole(self._folder / JOURNAL, "".join(f"{line}\n" for line in lines))

    @property
    def earlier(self) -> list[ScenarioRecord]:
        """What a runner finished that was killed afterwards."""
        return [scenario for scenario in self._scenarios.values() if scenario.is_earlier]

    def was_begun(self, session_id: str) -> bool:
        """Whether a runner that was killed was in the middle of this scenario."""
        return session_id in self._begun

    def scenario_starts(self, session_id: str, feature: str, name: str) -> None:
        self._say_scenario(feature, name)
        self._scenario = self._scenarios[session_id] = ScenarioRecord(session_id, feature, name)
        self._keep()

    def _say_scenario(self, feature: str, name: str) -> None:
        if self._feature != feature:
            self._feature = feature
            console.print(f"\n[bold]Feature: {_escaped(feature)}[/]")
        console.print(f"\n  [bold]Scenario: {_escaped(name)}[/]")

    def retell(self, scenario: ScenarioRecord) -> None:
        """A scenario that an earlier runner finished."""
        self._say_scenario(scenario.feature, scenario.name)
        console.print(f"    {_coloured(not scenario.words)} finished before [dim]{_seconds(scenario.took)}[/]")
        if scenario.words:
            _say_error(scenario.words)

    def step_starts(self, text: str, now: float) -> None:
        self._step = text, now

    def note(self, text: str) -> None:
        """A line of evidence, shown under the step that looked at it."""
        self._notes.append(text)

    def table(self, title: str, header: list[str], rows: list[list[str]]) -> None:
        """What is too wide for a terminal: under the step in the summary alone."""
        self._tables.append(Table(title, header, rows))

    def step_ends(self, now: float, error: str | None, resumed: str = "") -> None:
        text, began = self._step
        step = StepRecord(text, timedelta(seconds=now - began), error, self._notes, self._tables, resumed)
        self._notes, self._tables = [], []
        self._scenario.steps.append(step)
        mark = f" [cyan]{resumed}[/]" if resumed else ""
        console.print(f"    {_coloured(error is None)} {_escaped(text)} [dim]{_seconds(step.took)}[/]{mark}")
        for note in step.notes:
            console.print(f"      [dim]{_escaped(note)}[/]")
        if error:
            _say_error(error)

    def add_note(self, text: str) -> None:
        """A line about the step that has just ended."""
        self._scenario.steps[-1].notes.append(text)
        console.print(f"      [dim]{_escaped(text)}[/]")

    def scenario_reports(self, report: pytest.TestReport, problem: str | None, code: ExitCode | None = None) -> None:
        """The outcome of a test's setup, call or teardown: the scenario's own, whichever part fails.

        In the journal before its session is told to end: a runner that is killed in between has finished it, and who
        takes the run up ends the session.
        """
        scenario = self._scenario
        scenario.took += timedelta(seconds=report.duration)
        if report.when == "call" and report.passed:
            scenario.outcome = "passed"
        if problem:
            scenario.outcome = "failed"
            scenario.exit_codes += [code] if code else []
            if not any(step.error for step in scenario.steps):
                # What fails in a step was said when it happened.
                scenario.problem = scenario.problem or f"{report.when}: {problem}"
                console.print(f"    [red]✗ {_escaped(scenario.problem)}[/]")
        if report.when == "call" or problem:
            self._keep()

    def cleanup_reports(self, report: pytest.TestReport, problem: str | None) -> None:
        """The outcome of the last test, which sees that everything is undone."""
        if report.when == "call" or problem:
            self._left = problem or ""
            words = _escaped(self._left) or "Everything the scenarios made is gone"
            console.print(f"\n  {'[red]✗[/]' if problem else '[green]✓[/]'} {words} [dim]{report.duration:.2f}s[/]")

    def write(self) -> None:
        if self._folder is None or not self._scenarios:
            return
        passed = sum(scenario.outcome == "passed" for scenario in self._scenarios.values())
        result = f"{passed} of {len(self._scenarios)} scenarios passed."
        console.print(f"\n{result}")
        lines = [f"# Run {self._run_id}", "", result, ""]
        lines += [f"KubeVirt: {self.kubevirt}", ""]
        lines += _how_resumed(self.earlier, self._begun)
        feature = None
        for scenario in self._scenarios.values():
            if scenario.feature != feature:
                feature = scenario.feature
                lines += [f"## {feature}", ""]
            took = f"{_seconds(scenario.took)}{', finished before' if scenario.is_earlier else ''}"
            lines += [f"### {_mark(scenario.outcome == 'passed')} {scenario.name} ({took})", ""]
            for step in scenario.steps:
                resumed = f", {step.resumed}" if step.resumed else ""
                lines.append(f"- {_mark(step.error is None)} {step.text} ({_seconds(step.took)}{resumed})")
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


def _how_resumed(earlier: list[ScenarioRecord], begun: list[str]) -> list[str]:
    if not earlier and not begun:
        return []
    return [
        f"The process that ran this was killed, and another went on: {len(earlier)} scenarios were finished before. "
        "A step that is marked as resumed had ended before, and returned its first result; one that was taken up had "
        "begun.",
        "",
    ]


def _mark(good: bool) -> str:
    return "✓" if good else "✗"


def _coloured(good: bool) -> str:
    return f"[{'green' if good else 'red'}]{_mark(good)}[/]"


def _say_error(error: str) -> None:
    console.print("      " + error.replace("\n", "\n      "), style="red", markup=False)


def _seconds(took: timedelta) -> str:
    return f"{took.total_seconds():.2f}s"


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
