"""Percentiles against a brute force: over n, the smallest value that enough of them do not exceed."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from virtflow.percentiles import Never, nearest_rank, tells_more_than_the_longest

got_there = st.lists(st.integers(0, 50).map(lambda seconds: timedelta(seconds=seconds)), max_size=150)


@given(got_there, st.integers(0, 30), st.integers(1, 100))
def test_it_is_the_smallest_that_enough_do_not_exceed(took: list[timedelta], never: int, percent: int) -> None:
    n = len(took) + never
    if n == 0:
        return
    enough = [value for value in took if 100 * sum(other <= value for other in took) >= percent * n]
    assert nearest_rank(sorted(took), n, percent) == min(enough, default=Never)


@given(got_there, st.integers(0, 30), st.integers(1, 100))
def test_one_more_that_never_got_there_never_makes_it_look_faster(
    took: list[timedelta], never: int, percent: int
) -> None:
    n = len(took) + never + 1
    before, after = (nearest_rank(sorted(took), each, percent) for each in (n, n + 1))
    assert after is Never or (isinstance(before, timedelta) and isinstance(after, timedelta) and before <= after)


@given(st.integers(1, 500), st.sampled_from([50, 95, 99]))
def test_one_that_is_told_leaves_somebody_above_it(n: int, percent: int) -> None:
    distinct = [timedelta(seconds=second) for second in range(n)]
    assert tells_more_than_the_longest(n, percent) == (nearest_rank(distinct, n, percent) != distinct[-1])
