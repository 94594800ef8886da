"""Whether a controller backs off, told by counts of its tries."""

from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.quota_models import Tries

START = datetime(2026, 11, 23, 10, tzinfo=UTC)


def tries(pauses: list[float]) -> Tries:
    return Tries("virt-launcher-x", [START + timedelta(seconds=each) for each in accumulate([0, *pauses])])


@given(
    first=st.floats(0.005, 0.05),
    number=st.integers(6, 13),
    late=st.lists(st.floats(0, 0.01), min_size=13, max_size=13),
    burst=st.integers(0, 3),
)
def test_pauses_that_double_grow_also_if_each_is_a_little_late(
    first: float, number: int, late: list[float], burst: int
) -> None:
    doubling = [first * 2**turn + late[turn] for turn in range(number)]
    assert tries([0.001] * burst + doubling).pauses_grow


@given(pause=st.floats(0.001, 60), number=st.integers(0, 200))
def test_pauses_of_one_length_do_not(pause: float, number: int) -> None:
    assert not tries([pause] * number).pauses_grow


def test_a_controller_that_pauses_a_quarter_of_a_second_after_a_first_burst_does_not() -> None:
    assert not tries([0.01, 0.02, 0.04, *([0.25] * 20)]).pauses_grow


@pytest.mark.parametrize("pauses", [[], [1.0], [1.0, 2.0]])
def test_so_few_tell_nothing(pauses: list[float]) -> None:
    assert not tries(pauses).pauses_grow
