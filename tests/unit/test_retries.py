"""What docs/DURABILITY.md says of retries is what the code does."""

import inspect
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.common import RetryPolicy

from activities import doors, errors, gateway
from virtflow.verdicts import VERDICTS
from workflows import options
from workflows.failures import BUGS, FailureType

DOCUMENT = (Path(__file__).parents[2] / "docs" / "DURABILITY.md").read_text()
PROSE = " ".join(DOCUMENT.split())
ROWS = {
    cells[0]: cells[1:]
    for line in DOCUMENT.splitlines()
    if line.startswith("| ")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}
DAY = timedelta(days=1)


def configs() -> dict[str, Mapping[str, Any]]:
    """Every policy by name; those that a function makes are of so many days."""
    public = {name: value for name, value in vars(options).items() if not name.startswith("_")}
    fixed = {name: value for name, value in public.items() if isinstance(value, dict)}
    made = {
        f"{name}({', '.join(inspect.signature(value).parameters)})": value(DAY)
        for name, value in public.items()
        if inspect.isfunction(value) and value.__module__ == options.__name__
    }
    return fixed | made


def said(limit: timedelta | None, of: str) -> str:
    """As people say it: `30 s`, `2 min`; with whole days as what the function was given, `limit + 10 s`."""
    if limit is None:
        return "-"
    times, rest = divmod(limit, DAY)
    seconds = int(rest.total_seconds())
    words = f"{seconds} s" if seconds % 60 else f"{seconds // 60} min"
    return f"{['', '', 'twice '][times]}{of} + {words}" if times else words


@pytest.mark.parametrize("name", configs())
def test_each_policy_is_in_the_table_with_its_limits(name: str) -> None:
    config = configs()[name]
    limits = ("start_to_close_timeout", "schedule_to_close_timeout", "heartbeat_timeout")
    given = name.partition("(")[2].removesuffix(")")
    expected = [said(config.get(limit), given) for limit in limits]
    assert ROWS.get(name, [])[:3] == expected, f"docs/DURABILITY.md needs | {name} | {' | '.join(expected)} |"


def test_all_policies_share_the_back_off_that_is_described() -> None:
    policies: list[RetryPolicy] = [config["retry_policy"] for config in configs().values()]
    first = policies[0]
    assert all(policy == first for policy in policies)
    assert first.maximum_interval is not None
    assert first.backoff_coefficient == 2
    words = (
        f"it waits {first.initial_interval.total_seconds():g} s, then twice as long each time, at most "
        f"{first.maximum_interval.total_seconds():g} s; where the gateway says how long (`Retry-After`), that, at "
        f"most {gateway.LONGEST_PAUSE.total_seconds():g} s."
    )
    assert words in PROSE
    assert first.maximum_attempts == 0, "the limit is a time"
    assert f"speaks for {said(options.IDLE_TIMEOUT, '')} is undone" in PROSE


def test_code_of_ours_that_stumbles_is_not_tried_again() -> None:
    for config in configs().values():
        assert tuple(config["retry_policy"].non_retryable_error_types) == BUGS
    builtin = vars(__import__("builtins"))
    assert all(issubclass(builtin[name], Exception) for name in BUGS)
    away = (OSError, TimeoutError, ConnectionError)
    assert not any(builtin[name] in away for name in BUGS), "these are a server that is away"


@pytest.mark.parametrize("kind", FailureType)
def test_each_type_of_failure_is_in_the_table_with_its_exit_code(kind: FailureType) -> None:
    retried = "yes" if kind is FailureType.AWAY else "no"
    assert ROWS.get(kind, [])[:2] == [retried, str(VERDICTS[kind].exit_code.value)], kind


def test_the_answers_that_are_worth_another_try_are_in_the_table() -> None:
    def codes(worth: frozenset[int]) -> str:
        return "nothing at all, " + ", ".join(map(str, sorted(worth)))

    assert ROWS["kube-apiserver"][0] == codes(errors.WORTH_ANOTHER_TRY) + ", 500 and above"
    assert ROWS["gateway"][0] == codes(gateway.WORTH_ANOTHER_TRY)
    assert ROWS["both doors, for the access matrix"][0] == f"{codes(doors.WORTH_ANOTHER_TRY)}; {doors.TRIES} tries"
