"""What journeys come to: a table of their phases, those that failed, and everything raw."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from virtflow.percentiles import Never, nearest_rank, tells_more_than_the_longest
from workflows.journey_models import JourneyPhase, TenantJourneyOutcome

__all__ = ["Journey", "failures_of", "table_of", "write_journeys"]

PERCENTS = (50, 95, 99)
FAILURES_SHOWN = 10
BY_AUDIT_LOG = "create to Running, by the audit log"


@dataclass(frozen=True)
class Journey:
    """One journey that has ended. Without an outcome it was cancelled or terminated: `problem` says it."""

    tenant: str
    workflow_id: str
    outcome: TenantJourneyOutcome | None = None
    problem: str = ""
    left: list[str] = field(default_factory=list)
    """What cleanup could not undo."""

    @property
    def failure(self) -> str:
        """Where it stopped and why; empty if it ended well."""
        if self.outcome is None:
            return self.problem
        if self.outcome.stopped_at is None:
            return ""
        return f"before {self.outcome.stopped_at}: {self.outcome.problem}"


def table_of(journeys: Sequence[Journey], phases: Sequence[JourneyPhase]) -> Table:
    """A row for each phase, over all journeys: those that never passed it are counted as slower than any."""
    table = Table(box=None, pad_edge=False)
    for title in ("phase", "n", *(f"P{percent}" for percent in PERCENTS), "longest", "never"):
        table.add_column(title, justify="left" if title == "phase" else "right")
    outcomes = [journey.outcome for journey in journeys if journey.outcome]
    for phase in phases:
        took = [outcome.took[phase] for outcome in outcomes if phase in outcome.took]
        table.add_row(phase, *_cells(took, len(journeys)))
        if phase is JourneyPhase.VM_RUNNING:
            observed = [outcome.running_after for outcome in outcomes if outcome.running_after is not None]
            table.add_row(f"  {BY_AUDIT_LOG}", *_cells(observed, len(journeys)), style="dim")
    return table


def _cells(took: list[timedelta], n: int) -> list[str]:
    ascending = sorted(took)
    percentiles = [
        _shown(nearest_rank(ascending, n, percent)) if tells_more_than_the_longest(n, percent) else "-"
        for percent in PERCENTS
    ]
    return [str(n), *percentiles, _shown(ascending[-1]) if ascending else "never", str(n - len(took))]


def _shown(value: timedelta | type[Never]) -> str:
    return f"{value.total_seconds():.2f} s" if isinstance(value, timedelta) else "never"


def failures_of(journeys: Sequence[Journey]) -> RenderableType:
    """The first of those that failed, each with its phase and its cause."""
    failed = [journey for journey in journeys if journey.failure]
    lines = [Text(f"{journey.tenant} {journey.failure}", style="red") for journey in failed[:FAILURES_SHOWN]]
    if len(failed) > FAILURES_SHOWN:
        lines.append(Text(f"... and {len(failed) - FAILURES_SHOWN} more"))
    return Group(*lines)


def write_journeys(file: Path, journeys: Sequence[Journey]) -> None:
    """Every journey as it came; durations in ISO 8601."""
    file.write_bytes(TypeAdapter(list[Journey]).dump_json(list(journeys), indent=2))
