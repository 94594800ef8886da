"""Ending processes that are not our own children, and knowing when they have ended."""

import contextlib
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta

import psutil

__all__ = ["kill", "marked"]

POLL = timedelta(milliseconds=20)
KILL_LIMIT = timedelta(seconds=5)


def marked(variable: str, value: str) -> list[psutil.Process]:
    """The processes that were started with this in their environment, by whomever, or by whose children."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(variable) == value:
                found.append(process)
    return found


def kill(processes: Iterable[psutil.Process]) -> Sequence[psutil.Process]:
    """Kill all and wait until they are gone; return those that are still there after five seconds."""
    waiting = list(processes)
    for process in waiting:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + KILL_LIMIT.total_seconds()
    while (alive := [process for process in waiting if _runs(process)]) and time.monotonic() < deadline:
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
