"""Ending processes that are not our own children, and knowing when they have ended."""

import contextlib
import time
from collections.abc import Sequence
from datetime import timedelta

import psutil

__all__ = ["end", "kill"]

POLL = timedelta(milliseconds=20)
KILL_LIMIT = timedelta(seconds=5)


def end(processes: Sequence[psutil.Process], limit: timedelta) -> None:
    """Ask all at the same time, and kill what has not ended within the limit."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    kill(_not_ended(processes, limit))


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill, and return when they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _not_ended(processes, KILL_LIMIT)


def _not_ended(processes: Sequence[psutil.Process], limit: timedelta) -> list[psutil.Process]:
    deadline = time.monotonic() + limit.total_seconds()
    while (alive := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(POLL.total_seconds())
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        # A zombie has ended. When its parent takes note is not ours to wait for: supervisord does once a second,
        # and a container's first process perhaps never. But while other threads of it are still on their way
        # out, it holds its ports and files.
        ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        return process.is_running() and not ended
    except psutil.NoSuchProcess:
        return False
