"""How long things may take and how often they are tried: every time-out and retry policy, in one place."""

from datetime import timedelta

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig, LocalActivityConfig

from workflows.failures import BUGS

__all__ = [
    "ANSWER_LIMIT",
    "ASKED_WITHIN",
    "AT_ONCE",
    "CLEAN_UP",
    "CREATE_TENANT",
    "EVIDENCE",
    "HEARTBEAT_TIMEOUT",
    "IDLE_TIMEOUT",
    "LOAD_TURN",
    "NODE_CHANGES_WITHIN",
    "OUTAGES",
    "QUICK",
    "STEP_LIMIT",
    "TRIED_WITHIN",
    "UNDONE_LIMIT",
    "holding",
    "loading",
    "waiting",
]

IDLE_TIMEOUT = timedelta(minutes=10)
"""A scenario nobody speaks to for this long undoes what it made: its test runner is gone."""

HEARTBEAT_TIMEOUT = timedelta(seconds=20)
"""Of a worker that says nothing for so long an activity is taken away. It says something every ten at least."""

STEP_LIMIT = timedelta(minutes=45)
UNDONE_LIMIT = timedelta(minutes=15)
ANSWER_LIMIT = timedelta(minutes=2)
"""Of who waits for a workflow's answer, or for its end. Every activity has a shorter limit of its own: these are for
a worker or a Temporal that is gone."""

AT_ONCE = 25
"""Of many like steps: more at a time end no sooner, and one that waits for its turn has not begun to run out."""

# What is retried is a server that is away, busy or lost a race. Refusals and waits that ran out are not: activities
# raise them as final. Nor is code of ours that stumbles, which Temporal would otherwise try for minutes.
_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=5),
    non_retryable_error_types=BUGS,
)

# Not the default, TRY_CANCEL: that goes on while the cancelled activity may still be making something, and
# what undoes it would come too early.
_WAIT = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED

QUICK = ActivityConfig(
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(minutes=2),
    retry_policy=_RETRY,
    cancellation_type=_WAIT,
)
"""A request or a few."""

EVIDENCE = LocalActivityConfig(
    start_to_close_timeout=timedelta(seconds=30),
    schedule_to_close_timeout=timedelta(seconds=90),
    retry_policy=_RETRY,
    cancellation_type=_WAIT,
)
"""Reading what is on record. A local activity: it changes nothing and takes milliseconds, of which an activity of
Temporal's server would make many, for each virtual machine."""

CLEAN_UP = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=HEARTBEAT_TIMEOUT,
    retry_policy=_RETRY,
    cancellation_type=_WAIT,
)
"""Deleting, and waiting until it is gone. Tried for long: what it leaves, somebody else has to find."""


ASKED_WITHIN = timedelta(minutes=1)
"""A request of a tenant at one of the doors, or a look into a log: more only if a server is away."""

TRIED_WITHIN = timedelta(minutes=10)
"""All requests there are, as some tenants. A thousand take a few seconds; one that hangs takes a minute at most."""

LOAD_TURN = timedelta(minutes=20)
"""The longest that a load may wait for other loads to end."""

LOAD_OVERTIME = timedelta(minutes=2)
"""What a load may take beyond its plan: start, last requests, and a pause in a crash."""


def loading(planned: timedelta) -> ActivityConfig:
    """A load, which a retry takes up where it is.

    How long it waits for its turn is for the loads before it to say, so that the limits leave room for many of
    them. What hangs is found sooner: a worker by its heartbeats, Locust by its own, which the activity watches.
    Twice the plan, because a Locust that dies begins its loads again.
    """
    whole = LOAD_TURN + 2 * planned + LOAD_OVERTIME
    return ActivityConfig(
        start_to_close_timeout=whole,
        schedule_to_close_timeout=whole,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_RETRY,
        cancellation_type=_WAIT,
    )


def waiting(limit: timedelta) -> ActivityConfig:
    """A wait for a condition that must come true within `limit`, on however many workers it takes."""
    return ActivityConfig(
        start_to_close_timeout=limit + timedelta(seconds=10),
        schedule_to_close_timeout=limit + timedelta(seconds=30),
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_RETRY,
        cancellation_type=_WAIT,
    )


OUTAGES = "virtflow-outages"
"""Task queue of what takes programs down and brings them back: its worker starts without a kube-apiserver, too."""

OUTAGE_OVERTIME = timedelta(minutes=5)
"""What an outage may take beyond its own time: the kill, the start, and the death of a worker in the middle of it."""


def holding(lasts: timedelta) -> ActivityConfig:
    """An outage. Its retry, after a worker's death, holds on for what is left of it."""
    return ActivityConfig(
        task_queue=OUTAGES,
        start_to_close_timeout=lasts + OUTAGE_OVERTIME,
        schedule_to_close_timeout=lasts + OUTAGE_OVERTIME,
        heartbeat_timeout=HEARTBEAT_TIMEOUT,
        retry_policy=_RETRY,
        cancellation_type=_WAIT,
    )


NODE_CHANGES_WITHIN = timedelta(minutes=2)
"""A node that is to fail may have to be mended of another's fault first. Each of the two takes seconds."""

CREATE_TENANT = waiting(timedelta(seconds=90))
"""A few requests, and a wait for a quota that kube-controller-manager may have to learn of first."""
