"""Exit codes: what an error leads to, what a run with several comes to, and that they are documented."""

import itertools
from pathlib import Path

import pytest

from clusters.endpoints import ClusterError
from clusters.local.toolchain import ToolchainError
from load.runner import LoadError
from virtflow.errors import (
    VERBOSE,
    BugError,
    CancelledError,
    InputError,
    LeftBehindError,
    SloMissedError,
    TimedOutError,
    VirtflowError,
    explain,
)
from virtflow.exit_codes import ExitCode, worst

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VirtflowError, 1),
        (InputError, 2),
        (ToolchainError, 3),
        (ClusterError, 3),
        (LoadError, 3),
        (LeftBehindError, 4),
        (SloMissedError, 5),
        (TimedOutError, 6),
        (BugError, 70),
        (CancelledError, 130),
    ],
)
def test_an_error_carries_its_code(error: type[VirtflowError], code: int) -> None:
    assert error("words").exit_code == code


def test_a_run_ends_with_what_weighs_most() -> None:
    by_value = {code.value: code for code in ExitCode}
    order = [by_value[value] for value in (4, 130, 5, 6, 1, 2, 3, 70)]
    assert {*order, ExitCode.PASSED} == set(ExitCode)
    assert worst([]) == ExitCode.PASSED
    for lighter, heavier in itertools.combinations(order, 2):
        assert worst([lighter, heavier, lighter]) == worst([heavier, lighter]) == heavier


def test_the_readme_has_every_code_with_its_meaning() -> None:
    rows = [line.split("|")[1:3] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    table = {code.strip(): meaning.strip() for code, meaning in rows}
    assert {str(code.value): code.meaning for code in ExitCode}.items() <= table.items()


@pytest.mark.parametrize("file", ["README.md", "docs/DURABILITY.md"])
def test_the_order_of_weight_is_documented(file: str) -> None:
    codes = [code for code in ExitCode if code]
    order = sorted(codes, key=lambda code: sum(worst([code, each]) is each for each in codes))
    said = ", ".join(str(code.value) for code in order)
    assert f"it is the gravest: {said}." in (ROOT / file).read_text()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_an_unexpected_error_is_one_paragraph_that_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VERBOSE, raising=False)
    error = raised(KeyError("tenant-b"))
    assert error.__traceback__ is not None
    line = error.__traceback__.tb_lineno
    assert explain(error) == (
        f"virtflow itself failed: KeyError: 'tenant-b' (tests/unit/test_exit_codes.py:{line}). "
        f"Type it again with -v (make: V=1) for the traceback."
    )


@pytest.mark.parametrize("error", [VirtflowError("It rained."), AssertionError("It rained.")])
def test_an_error_for_people_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setenv(VERBOSE, "0")
    assert explain(raised(error)) == "It rained."


def test_with_verbose_every_error_has_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VERBOSE, "1")
    told = explain(raised(VirtflowError("It rained.")))
    assert told.startswith("Traceback (most recent call last):")
    assert told.endswith("It rained.")
