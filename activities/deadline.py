"""How much of a wait's time is left.

All tries together end soon after the time that a wait has (`workflows.options.waiting`). So a try that follows a
worker's death has the rest of it: one that began anew would be cut off, and nobody would say what did not come.
"""

from datetime import UTC, datetime, timedelta

from temporalio import activity

__all__ = ["MOMENT", "time_left"]

MOMENT = timedelta(seconds=4)
"""The least there is: enough to see what has come about while there was no worker."""


def time_left(within: timedelta) -> timedelta:
    """To this activity, of all the time that it has. The first try's begins with it: there may be a queue before."""
    info = activity.info()
    if info.attempt == 1:
        return within
    return max(info.scheduled_time + within - datetime.now(UTC), MOMENT)
