"""Saga order, whatever fails."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from temporalio.exceptions import ActivityError, RetryState

from workflows.saga import Saga


def failure() -> ActivityError:
    return ActivityError(
        "failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="undo",
        activity_id="1",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )


@given(st.lists(st.booleans(), max_size=8))
def test_everything_is_undone_once_in_reverse_whatever_fails(fails: list[bool]) -> None:
    undone: list[int] = []
    one = Saga()
    for number, fail in enumerate(fails):

        async def undo(number: int = number, fail: bool = fail) -> None:
            undone.append(number)
            if fail:
                raise failure()

        one.will_undo(f"thing {number}", undo)
    left = asyncio.run(one.undo())
    again = asyncio.run(one.undo())
    assert undone == list(reversed(range(len(fails))))
    assert [line.split(":")[0] for line in left] == [f"thing {n}" for n in reversed(range(len(fails))) if fails[n]]
    assert again == []
