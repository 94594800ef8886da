from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from activities.heartbeat import A_SECOND, HEARTBEAT_EVERY, SELDOM, pause
from workflows.options import waiting


@given(st.integers(1, 10_000))
def test_heartbeats_are_never_too_late_and_not_too_many(beating: int) -> None:
    between = pause(beating)
    limit = waiting(timedelta(minutes=1))["heartbeat_timeout"]
    assert limit is not None
    assert HEARTBEAT_EVERY <= between <= SELDOM <= limit / 2
    if between < SELDOM:
        assert beating / between.total_seconds() <= A_SECOND


def test_a_few_waits_hear_of_a_cancellation_soon() -> None:
    assert pause(1) == pause(50) == HEARTBEAT_EVERY
    assert pause(1000) == SELDOM
