"""What a run came to: which program was killed how often, in which step journeys were then, and how those ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydantic import TypeAdapter

from virtflow.exit_codes import ExitCode, worst
from virtflow.torture.kills import Killed
from virtflow.torture.travel import EVIDENCE, Travelled
from workflows.journey_models import JourneyPhase

__all__ = ["Tortured", "lines_of", "markdown_of", "rows_of", "write_result"]

STEPS = {
    JourneyPhase.TENANT_CREATED: "tenant",
    JourneyPhase.VM_ACCEPTED: "create",
    JourneyPhase.VM_RUNNING: "start",
    EVIDENCE: "evidence",
    JourneyPhase.REPLICA_SET_READY: "replica set",
    JourneyPhase.SCALED_OUT: "scale out",
    JourneyPhase.SCALED_IN: "scale in",
    JourneyPhase.GONE: "clean-up",
}
"""What a journey does to pass a phase, in the order of the columns."""


@dataclass(frozen=True)
class Tortured:
    """One run, all of it."""

    killed: list[Killed]
    journeys: list[Travelled]
    problems: list[str] = field(default_factory=list)
    """Journeys that failed, and things that were created twice or never."""
    left: list[str] = field(default_factory=list)
    """What was still there in the end: objects, processes, ports."""
    notes: list[str] = field(default_factory=list)

    @property
    def code(self) -> ExitCode:
        """That of the whole command."""
        faults = {ExitCode.FAILED: self.problems, ExitCode.LEFT_BEHIND: self.left}
        return worst([code for code, found in faults.items() if found])


def rows_of(result: Tortured) -> list[list[str]]:
    """The titles, a row for each program that was killed, and their sum."""
    steps = [step for step in STEPS if any(_hit(result.killed, result.journeys, step))]
    titles = ["killed", "times", "back after", *(STEPS[step] for step in steps), "journeys"]
    victims = sorted({killed.kill.victim for killed in result.killed})
    by_victim = {name: [each for each in result.killed if each.kill.victim == name] for name in victims}
    rows = [_row(victim, killed, result, steps) for victim, killed in by_victim.items()]
    return [titles, *rows, _row("all", result.killed, result, steps)]


def _row(title: str, killed: Sequence[Killed], result: Tortured, steps: Sequence[str]) -> list[str]:
    longest = max((each.back_after for each in killed), default=timedelta())
    hit = {journey.journey.workflow_id: journey for step in steps for journey in _hit(killed, result.journeys, step)}
    failed = sum(1 for journey in hit.values() if journey.journey.failure)
    outcome = f"{failed} of {len(hit)} failed" if failed else f"{len(hit)} passed"
    cells = [str(len(_hit(killed, result.journeys, step)) or "") for step in steps]
    return [title, str(len(killed)), f"{longest.total_seconds():.1f} s", *cells, outcome]


def _hit(killed: Sequence[Killed], journeys: Sequence[Travelled], step: str) -> list[Travelled]:
    """The journeys that were in a step at one of these kills; one that was hit there twice counts twice."""
    return [journey for each in killed for journey in journeys if journey.step_at(each.at) == step]


def lines_of(result: Tortured) -> list[str]:
    """The rows for a terminal, or a file, of which nobody knows how wide it is."""
    rows = rows_of(result)
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))

    def line(row: list[str]) -> str:
        return "  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)])

    return [line(row) for row in rows]


def markdown_of(result: Tortured, seed: int, took: timedelta) -> str:
    """The same for a page, with what the run was and what was wrong with it."""
    titles, *rows = rows_of(result)
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    found = [f"- {line}" for line in (*result.problems, *result.left, *result.notes)]
    seconds = took.total_seconds()
    return "\n".join(
        [
            f"{len(result.killed)} kills of seed {seed}, {len(result.journeys)} journeys, {seconds:.0f} s.",
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            *(["", *found] if found else []),
            "",
        ]
    )


def write_result(folder: Path, result: Tortured, seed: int, took: timedelta) -> None:
    """torture.md, and torture.json with every kill and every journey; durations in ISO 8601."""
    (folder / "torture.md").write_text(markdown_of(result, seed, took))
    (folder / "torture.json").write_bytes(TypeAdapter(Tortured).dump_json(result, indent=2))
