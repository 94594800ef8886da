"""What became of a play: which situations agree, and in what the others differ."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.conformance.compare import compare, watched_part
from tests.conformance.play import Played
from tests.conformance.situations import Deviation

__all__ = ["Outcome", "gone", "judge", "table"]

UNSEEN = (
    "There was no audit log to read. Not compared, because watches do not show it: which actor wrote what, updates "
    "that leave the status alone, deletes, binds, refusals, what was written to pods, and the order across objects."
)


@dataclass(frozen=True)
class Outcome:
    """Of one situation."""

    situation: str
    title: str
    differences: list[str]
    """Unexplained ones."""
    explained: list[Deviation]


def judge(played: Played, deviations: list[Deviation], *, watches_only: bool) -> Outcome:
    """By the audit log, or by what watches showed."""
    situation = played.situation
    if played.failure:
        differences = [played.failure]
    elif watches_only or played.audited is None:
        differences = compare(watched_part(situation.account), played.watched)
    else:
        differences = compare(situation.account, played.audited)
    explaining = {line: [each for each in deviations if each.explains(situation.name, line)] for line in differences}
    return Outcome(
        situation.name,
        situation.title,
        [line for line, found in explaining.items() if not found],
        list(dict.fromkeys(each for found in explaining.values() for each in found)),
    )


def gone(outcomes: Iterable[Outcome], deviations: list[Deviation]) -> list[Deviation]:
    """Known deviations that no situation has shown."""
    shown = {each for outcome in outcomes for each in outcome.explained}
    return [each for each in deviations if each not in shown]


def table(outcomes: list[Outcome], deviations: list[Deviation], *, watches_only: bool) -> Iterator[str]:
    """A line for each situation."""
    width = max(len(outcome.situation) for outcome in outcomes)
    for outcome in sorted(outcomes, key=lambda outcome: outcome.situation):
        verdict = outcome.differences[0] if outcome.differences else "agrees"
        if outcome.explained and not outcome.differences:
            verdict += ", but for what is known: " + "; ".join(each.reason for each in outcome.explained)
        yield f"{outcome.situation:{width}}  {verdict}"
    if watches_only:
        yield UNSEEN
    for each in gone(outcomes, deviations):
        yield f"A known deviation no longer occurs, take it off the list: {each.situation}: {each.reason}"
