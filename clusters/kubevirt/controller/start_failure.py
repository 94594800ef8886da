"""What a VirtualMachine remembers of instances that ended without ever having run, and how long it waits therefore.

An instance that ran and then failed is replaced at once: something happened to it. One that never ran will most
likely not run the next time either, so each such end in a row delays the next attempt more, up to a bound. All
of it is in the VM's `status.startFailure`, as KubeVirt has it: a controller that is restarted waits as long as
the one before it would have.
"""

import random
from datetime import datetime, timedelta

from clusters.kubevirt.objects import format_time, is_final, parse_time, status_of
from virtflow.kube import Object

__all__ = ["LONGEST_DELAY", "delay", "next_start_failure", "time_left"]

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=10), timedelta(minutes=5)
SPREAD = 1.5
"""The most by which one VM waits longer than another one: those that failed together are not to retry together."""


def next_start_failure(old: Object | None, vmi: Object | None, now: datetime) -> Object | None:
    """`status.startFailure` with the VM's instance taken into account, None while there is nothing to tell."""
    if vmi is None:
        return old
    if has_run(vmi):
        return None
    uid, known = vmi["metadata"]["uid"], old or {}
    if not is_final(vmi) or known.get("lastFailedVMIUID") == uid:
        return old
    count = known.get("consecutiveFailCount", 0) + 1
    return {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": uid,
        "retryAfterTimestamp": format_time(now + delay(count, uid)),
    }


def has_run(vmi: Object) -> bool:
    return any(each["phase"] == "Running" for each in status_of(vmi).get("phaseTransitionTimestamps", []))


def delay(count: int, uid: str) -> timedelta:
    """The wait after so many failures in a row, spread by the last one's uid."""
    return min(FIRST_DELAY * count**2 * random.Random(uid).uniform(1, SPREAD), LONGEST_DELAY)


def time_left(failure: Object | None, now: datetime) -> timedelta:
    """How much longer `status.startFailure` puts the next start off."""
    if not failure:
        return timedelta(0)
    left = parse_time(failure["retryAfterTimestamp"]) - now
    # Nobody was ever told to wait longer than the longest delay: then the clock has been set back since.
    return left if timedelta(0) < left <= LONGEST_DELAY else timedelta(0)
