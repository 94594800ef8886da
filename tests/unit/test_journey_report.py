import json
from collections.abc import Sequence
from datetime import timedelta
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType

from virtflow.journey import codes_of
from virtflow.journey_report import Journey, failures_of, table_of, write_journeys
from workflows.failures import FailureType
from workflows.journey_models import JourneyPhase, TenantJourneyOutcome
from workflows.models import ObservedArrow

PHASES = [JourneyPhase.TENANT_CREATED, JourneyPhase.VM_RUNNING, JourneyPhase.WHOLE]


def passed(number: int) -> Journey:
    seconds = timedelta(seconds=number)
    arrow = ObservedArrow(11, "VM Running and ready", "virt-controller", observed=True, after=seconds / 2)
    outcome = TenantJourneyOutcome(dict.fromkeys(PHASES, seconds), arrows=[arrow])
    return Journey(f"tenant-{number:03}", f"run/journey/tenant-{number:03}", outcome)


def failed(number: int) -> Journey:
    took = {JourneyPhase.TENANT_CREATED: timedelta(seconds=number)}
    outcome = TenantJourneyOutcome(took, JourneyPhase.VM_RUNNING, "no [node] had room")
    return Journey(f"tenant-{number:03}", f"run/journey/tenant-{number:03}", outcome)


def printed(what: RenderableType) -> list[str]:
    console = Console(file=StringIO(), width=200)
    console.print(what)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def rows(journeys: Sequence[Journey]) -> dict[str, list[str]]:
    """By the phase's name: n, P50, P95, P99, longest, never."""
    lines = printed(table_of(journeys, PHASES))[1:]
    cells = [[cell for cell in line.replace(" s ", "s ").replace(" s\n", "s").split("  ") if cell] for line in lines]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def test_a_row_for_each_phase_over_all_journeys() -> None:
    table = rows([passed(number) for number in range(1, 101)])
    assert table["tenant created"] == ["100", "50.00s", "95.00s", "99.00s", "100.00s", "0"]
    assert table["create to Running, by the audit log"] == ["100", "25.00s", "47.50s", "49.50s", "50.00s", "0"]


def test_those_that_never_got_there_are_slower_than_any() -> None:
    table = rows([passed(number) for number in range(1, 91)] + [failed(number) for number in range(91, 101)])
    assert table["tenant created"][-1] == "0"
    assert table["VM Running"] == ["100", "50.00s", "never", "never", "90.00s", "10"]
    assert table["create to Running, by the audit log"][-1] == "10"


def test_a_percentile_that_is_only_the_longest_is_not_told() -> None:
    assert rows([passed(number) for number in range(1, 100)])["whole"][1:4] == ["50.00s", "95.00s", "-"]
    assert rows([passed(number) for number in range(1, 20)])["whole"][1:4] == ["10.00s", "-", "-"]


def test_where_nobody_got_there_is_never() -> None:
    assert rows([failed(1), failed(2)])["whole"] == ["2", "never", "-", "-", "never", "2"]


def test_ten_failures_are_named_with_phase_and_cause_and_the_rest_counted() -> None:
    lines = printed(failures_of([passed(1), *(failed(number) for number in range(2, 19))]))
    assert lines[0] == "tenant-002 before VM Running: no [node] had room"
    assert len(lines) == 11
    assert lines[-1] == "... and 7 more"
    assert printed(failures_of([passed(1)])) == []


def test_a_journey_that_was_ended_from_outside_has_failed() -> None:
    assert printed(failures_of([Journey("tenant-001", "id", problem="Workflow terminated")])) == [
        "tenant-001 Workflow terminated"
    ]


def test_everything_is_written_as_it_came(tmp_path: Path) -> None:
    file = tmp_path / "journeys.json"
    write_journeys(file, [passed(1), failed(2)])
    first, second = json.loads(file.read_text())
    assert first["outcome"]["took"]["VM Running"] == "PT1S"
    assert first["outcome"]["arrows"][0]["after"] == "PT0.5S"
    assert (second["outcome"]["stopped_at"], second["outcome"]["problem"]) == ("VM Running", "no [node] had room")


def test_a_journey_ends_the_command_with_the_code_of_its_failure() -> None:
    took = {JourneyPhase.TENANT_CREATED: timedelta(seconds=1)}

    def codes(failed_by: FailureType | None, left: list[str]) -> list[int]:
        problem = "it rained" if failed_by else ""
        outcome = TenantJourneyOutcome(
            took, JourneyPhase.VM_RUNNING if problem else None, problem, failed_by=failed_by
        )
        return list(codes_of(Journey("tenant-001", "id", outcome, left=left)))

    assert codes(None, []) == []
    assert codes(FailureType.TIMED_OUT, []) == [6]
    assert codes(FailureType.REFUSED, ["a namespace"]) == [4, 1]
    assert list(codes_of(Journey("tenant-001", "id", problem="Workflow terminated"))) == [1]
