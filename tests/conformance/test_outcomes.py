"""What is made of differences: known ones are explained, and none is forgotten."""

from pathlib import Path

import pytest

from tests.conformance.outcomes import gone, judge, table
from tests.conformance.play import Played
from tests.conformance.situations import Deviation, Situation, chains, load_deviations, load_situations
from tests.conformance.support import observed

DOCUMENT = Path(__file__).parents[2] / "docs" / "DEVIATIONS.md"
KNOWN = Deviation("02-*", "the events: .*", "nobody reads them", "no events")


def played(situation: Situation, *, events: list[str] | None = None) -> Played:
    run = observed(situation.account)
    return Played(situation, {}, run if events is None else {**run, "events": events})


@pytest.fixture
def situations() -> list[Situation]:
    return load_situations()[:2]


def test_what_agrees_agrees(situations: list[Situation]) -> None:
    outcomes = [judge(played(each), [], watches_only=False) for each in situations]
    assert list(table(outcomes, [], watches_only=False)) == ["01-vm-create  agrees", "02-vm-stop    agrees"]


def test_the_first_difference_is_shown(situations: list[Situation]) -> None:
    outcome = judge(played(situations[1], events=[]), [], watches_only=False)
    assert len(outcome.differences) == 2
    (line,) = table([outcome], [], watches_only=False)
    assert line.startswith("02-vm-stop  the events: expected 'Normal SuccessfulDelete VirtualMachine: ")


def test_a_known_deviation_is_no_difference(situations: list[Situation]) -> None:
    outcome = judge(played(situations[1], events=[]), [KNOWN], watches_only=False)
    assert outcome.differences == []
    (line,) = table([outcome], [KNOWN], watches_only=False)
    assert line == "02-vm-stop  agrees, but for what is known: nobody reads them"


def test_a_known_deviation_of_another_situation_explains_nothing(situations: list[Situation]) -> None:
    assert len(judge(played(situations[0], events=[]), [KNOWN], watches_only=False).differences) == 3


def test_a_known_deviation_that_no_longer_occurs_is_reported(situations: list[Situation]) -> None:
    outcomes = [judge(played(each), [KNOWN], watches_only=False) for each in situations]
    assert gone(outcomes, [KNOWN]) == [KNOWN]
    assert list(table(outcomes, [KNOWN], watches_only=False))[-1] == (
        "A known deviation no longer occurs, take it off the list: 02-*: nobody reads them"
    )


def test_what_could_not_be_played_differs(situations: list[Situation]) -> None:
    outcome = judge(Played(situations[0], {}, None, "it could not be played: no"), [], watches_only=False)
    assert outcome.differences == ["it could not be played: no"]


def test_without_an_audit_log_it_says_what_it_did_not_see(situations: list[Situation]) -> None:
    outcome = judge(Played(situations[0], {}, None, "no"), [], watches_only=True)
    assert list(table([outcome], [], watches_only=True))[-1].startswith("There was no audit log to read.")


def test_every_known_deviation_is_documented() -> None:
    assert [each for each in load_deviations() if each.documented not in DOCUMENT.read_text()] == []


def test_a_list_of_deviations_is_read(tmp_path: Path) -> None:
    file = tmp_path / "deviations.yaml"
    file.write_text(
        '[{situation: "02-*", difference: "the events: .*", reason: nobody reads them, documented: no events}]'
    )
    assert load_deviations(file) == [KNOWN]


def test_situations_that_continue_each_other_are_one_chain() -> None:
    assert [[each.name[:2] for each in chain] for chain in chains()] == [
        ["01", "02", "03", "04", "06"],
        ["07"],
        ["08", "09"],
        ["10", "11", "12", "13", "14"],
    ]
