"""What was observed, against what was expected: a row for each resource and place, and each hole in words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from virtflow.access.audit import Decision, Observed, weigh
from virtflow.access.matrix import VERBS, Cell, expected, homes, place_name
from workflows.access_models import (
    AccessMatrix,
    AccessOrder,
    AccessRow,
    AccessTable,
    AccessTotals,
    Door,
    Hole,
    Outcome,
)

__all__ = ["HOLE", "MARKS", "NO_REQUEST", "Answer", "tabulate"]

MARKS = {Outcome.ALLOWED: "✓", Outcome.DENIED: "·", Outcome.NOT_OFFERED: "\N{EN DASH}"}
HOLE, NO_REQUEST = "✗", " "
HOLES_NAMED = 100
"""Of all: a cluster that is open has as many as cells, and a history holds them."""


@dataclass(frozen=True)
class Answer:
    """What became of a cell at a door."""

    observed: Observed
    code: int
    said: str

    @property
    def expected(self) -> Outcome:
        return expected(self.observed.cell, self.observed.door)

    @property
    def is_hole(self) -> bool:
        return self.observed.outcome is not self.expected


def tabulate(order: AccessOrder, answers: Sequence[Answer], decisions: Iterable[Decision]) -> AccessMatrix:
    """`answers` in the order of their cells."""
    holes = [_hole(answer, order) for answer in answers if answer.is_hole]
    outcomes = Counter(answer.observed.outcome for answer in answers)
    return AccessMatrix(
        tables=[
            AccessTable(actor.name, list(_rows([a for a in answers if a.observed.cell.actor == actor], order)))
            for actor in order.actors
        ],
        totals=AccessTotals(
            cells=len({answer.observed.request_id.rpartition("-")[0] for answer in answers}),
            requests=len(answers),
            allowed=outcomes[Outcome.ALLOWED],
            denied=outcomes[Outcome.DENIED],
            not_offered=outcomes[Outcome.NOT_OFFERED],
            unclear=outcomes[Outcome.UNCLEAR],
            holes=len(holes),
        ),
        holes=holes[:HOLES_NAMED],
        evidence=weigh((answer.observed for answer in answers), decisions, homes(order.tenants)),
    )


def _rows(answers: Sequence[Answer], order: AccessOrder) -> Iterable[AccessRow]:
    def row_of(answer: Answer) -> tuple[str, str]:
        cell = answer.observed.cell
        return str(cell.target), place_name(cell, order.tenants)

    for (resource, place), row in groupby(answers, row_of):
        marks: dict[tuple[Door, str], str] = {}
        for answer in row:
            # One mark for all users, of whom the same is expected: a hole of one is the tenant's.
            request = answer.observed.door, answer.observed.cell.verb
            marks[request] = HOLE if marks.get(request) == HOLE else _mark(answer)
        gateway, kube_apiserver = ("".join(marks.get((door, verb), NO_REQUEST) for verb in VERBS) for door in Door)
        yield AccessRow(resource, place, gateway, kube_apiserver)


def _mark(answer: Answer) -> str:
    return HOLE if answer.is_hole else MARKS[answer.observed.outcome]


def _hole(answer: Answer, order: AccessOrder) -> Hole:
    cell: Cell = answer.observed.cell
    return Hole(
        user=cell.account,
        verb=cell.verb,
        resource=str(cell.target),
        place=place_name(cell, order.tenants),
        door=answer.observed.door,
        expected=answer.expected,
        observed=answer.observed.outcome,
        code=answer.code,
        said=answer.said[:200],
    )
