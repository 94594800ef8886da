"""Gives a load to the cluster's Locust and follows it, through the files of a folder.

Both sides may die and come back, and the load goes on: a caller that was killed finds its load where it is, instead
of putting the same load on top of it; Locust begins again what it left unfinished. Nothing is known of processes
here. Who keeps Locust running is a supervisor's business, and what counts is that somebody carries loads out.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from load.files import Pulse, RunFiles, heartbeat_of
from load.results import Ending, LoadPlan, LoadProgress, LoadResult, RunLog
from virtflow.errors import InfrastructureError

__all__ = ["LoadError", "await_begin", "run_load", "stop_load"]

POLL = timedelta(milliseconds=250)

SILENCE_LIMIT = timedelta(seconds=30)
"""A runner without a sign of life for so long is gone. Enough for a supervisor to start it again."""

LAST_REQUESTS = timedelta(seconds=12)
"""For requests under way at the end: a little more than a request's own limit in `users.py`."""

NOTICE = timedelta(seconds=2)
"""Within which a runner that lives has begun to write about a run."""


class LoadError(InfrastructureError):
    """The load itself did not work; says nothing about what was under load."""


async def run_load(
    plan: LoadPlan,
    folder: Path,
    on_progress: Callable[[LoadProgress], None],
    *,
    is_handed_on: Callable[[], bool] = lambda: False,
) -> LoadResult:
    """Have the plan carried out, when its turn comes, to its end or until `stop_load(folder)`.

    `folder` is in the runner's folder and belongs to one run: called again for it, this takes up a run that goes
    on, and returns the result of one that ended. `on_progress` gets the newest window, about every second.
    Cancelled, it ends the load, and returns when that sends nothing any more, unless `is_handed_on()` then: somebody
    else will call this for the folder. Raises LoadError.
    """
    files = RunFiles(folder)
    resumed = put_plan(plan, files)
    log = RunLog(files.log)
    runner = Pulse(heartbeat_of(folder.parent))
    try:
        await follow(plan, files, log, runner, on_progress)
    finally:
        if not log.finished and not is_handed_on():
            # Whatever the reason: a load that nobody waits for would fall on the next scenario.
            await withdraw(files, log, runner)
    if not log.windows or log.waited is None:
        raise LoadError(f"{files.log} says that the load on {plan.url} has ended, and not what came of it.")
    result = LoadResult(
        plan,
        tuple(log.windows),
        log.started,
        stopped=log.ending is Ending.STOPPED,
        resumed=resumed,
        restarted=log.restarted,
        waited=log.waited,
    )
    if not result.stopped and not result.requests:
        raise LoadError(
            f"The load on {plan.url} came to its end without a single request. `virtflow logs load` may say why."
        )
    return result


async def await_begin(folder: Path) -> timedelta:
    """How long the run of this folder has waited for its turn, when that has come."""
    log = RunLog(RunFiles(folder).log)
    while log.waited is None:
        log.read()
        await asyncio.sleep(POLL.total_seconds())
    return log.waited


def stop_load(folder: Path) -> None:
    """Tell the run of this folder to end: its users finish their requests and its result is as usual.

    Holds for a run that has not begun yet, too: it then ends before its first request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    RunFiles(folder).stop.touch()


def put_plan(plan: LoadPlan, files: RunFiles) -> bool:
    """Put the plan where the runner finds it; whether it was there already."""
    files.folder.mkdir(parents=True, exist_ok=True)
    if files.plan.exists():
        if LoadPlan.from_json(files.plan.read_text()) != plan:
            raise LoadError(
                f"{files.folder} holds a run of another plan than the one asked for ({plan}). Its results would be"
                " taken for this plan's. Give each run a folder of its own."
            )
        return True
    files.caller.touch()
    draft = files.plan.with_suffix(".draft")
    draft.write_text(plan.to_json())
    draft.replace(files.plan)
    return False


async def follow(
    plan: LoadPlan, files: RunFiles, log: RunLog, runner: Pulse, on_progress: Callable[[LoadProgress], None]
) -> None:
    called, shown = time.monotonic(), None
    while True:
        log.read()
        if log.error:
            raise LoadError(log.error)
        if log.finished:
            return
        if log.windows and log.windows[-1] is not shown:
            shown = log.windows[-1]
            on_progress(shown)
        # Also since the call: a runner that was away until now may be on its way.
        silent = min(runner.silence(), timedelta(seconds=time.monotonic() - called))
        if silent > SILENCE_LIMIT:
            raise LoadError(
                f"Nobody carries out the loads in {files.folder.parent}: Locust has shown no sign of life for "
                f"{silent.total_seconds():.0f} s. `virtflow status` says whether the program `load` runs, "
                "`virtflow logs load` what it said."
            )
        if not files.folder.exists():
            raise LoadError(
                f"{files.folder} was removed while its load was on, and nobody knows what came of it. A cluster's "
                "loads are removed when it is taken down (`virtflow down`)."
            )
        if not files.plan.exists():
            # An earlier caller, thought dead, was cancelled only now and took back what this one waits for.
            put_plan(plan, files)
        files.caller.touch()
        await asyncio.sleep(POLL.total_seconds())


async def withdraw(files: RunFiles, log: RunLog, runner: Pulse) -> None:
    """Take the plan back, and wait until the runner has ended the run, if it lives and knows of it."""
    files.plan.unlink(missing_ok=True)
    called = time.monotonic()
    while log.ending is None and not log.error and runner.silence() < SILENCE_LIMIT:
        # A run that the runner never saw has no end either.
        limit = NOTICE if log.waited is None else LAST_REQUESTS
        if time.monotonic() - called > limit.total_seconds():
            return
        await asyncio.sleep(POLL.total_seconds())
        log.read()
