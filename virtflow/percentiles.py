"""Percentiles over all that were asked for: whoever never got there counts as slower than anybody who did.

A percentile over only those that got there would look the better the more fail.
"""

from collections.abc import Sequence
from datetime import timedelta

__all__ = ["Never", "nearest_rank", "rank_of", "tells_more_than_the_longest"]


class Never:
    """The value of a percentile that falls among those that never got there."""


def nearest_rank(ascending: Sequence[timedelta], n: int, percent: int) -> timedelta | type[Never]:
    """The smallest value that `percent` of all `n` do not exceed; `ascending` are those of the n that got there."""
    rank = rank_of(n, percent)
    return ascending[rank - 1] if rank <= len(ascending) else Never


def rank_of(n: int, percent: int) -> int:
    """The place, from 1 on, of the percentile among n in ascending order."""
    return -(-n * percent // 100)


def tells_more_than_the_longest(n: int, percent: int) -> bool:
    """Whether at least one of n may be slower than this percentile. P99 takes 100, P95 takes 20, P50 two."""
    return n * (100 - percent) >= 100
