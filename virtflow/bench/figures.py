"""The figures of a benchmark: collected, shown as a table, written as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from virtflow.percentiles import rank_of

__all__ = ["Figure", "Figures", "percentile"]


@dataclass(frozen=True)
class Figure:
    """One line of the table. `goal` is the most (or, with `at_least`, the least) it should be."""

    title: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    n: int = 1
    """Of how many measurements it is the median or percentile."""
    detail: dict[str, Any] = field(default_factory=dict)
    """For the JSON only: what it was computed from."""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal


class Figures:
    """Kept in order, and written anew with each, so that a run that is interrupted leaves what it had."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._figures: list[Figure] = []

    def add(self, figure: Figure) -> None:
        self._figures.append(figure)
        self._file.write_text(json.dumps([asdict(figure) for figure in self._figures], indent=1, default=str) + "\n")

    def table(self) -> Table:
        table = Table("", "measured", "goal", "", "n", box=None, pad_edge=False)
        for figure in self._figures:
            sign = "≥" if figure.at_least else "≤"
            table.add_row(
                figure.title,
                f"{figure.value:.3g} {figure.unit}",
                "" if figure.goal is None else f"{sign} {figure.goal:g} {figure.unit}",
                {True: "[green]✓[/]", False: "[yellow]✗[/]", None: ""}[figure.reached],
                str(figure.n),
            )
        return table


def percentile(values: Sequence[float], percent: int) -> float:
    """By nearest rank."""
    return sorted(values)[rank_of(len(values), percent) - 1]
