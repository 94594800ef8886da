"""Runs Locust as a process of its own, follows it through its files, and judges it by them.

Locust's exit code tells apart too little (a run whose every user crashed can end with 0), so that only the
log counts. The process outlives its caller: all that is needed to take it up again is in the folder, and a
caller that was killed finds its load where it is, instead of putting the same load on top of it.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil

from load.results import LoadPlan, LoadProgress, LoadResult, RunFiles, RunLog
from virtflow.errors import InfrastructureError

__all__ = ["LoadError", "run_load", "stop_load"]

LOCUSTFILE = Path(__file__).with_name("locustfile.py")

POLL = timedelta(milliseconds=250)

LAST_REQUESTS = timedelta(seconds=11)
"""For requests under way at the end: a little more than a request's own timeouts in the locustfile."""

OVERTIME = timedelta(seconds=60)
"""A run still there so long after its plan is over, start and last requests included, hangs."""

OUTPUT_LINES = 15


class LoadError(InfrastructureError):
    """The load itself did not work; says nothing about what was under load."""


async def run_load(plan: LoadPlan, folder: Path, on_progress: Callable[[LoadProgress], None]) -> LoadResult:
    """Run the plan to its end, or until `stop_load(folder)`; cancelled, it ends the load at once.

    `on_progress` gets the newest window, about every second from the moment Locust is up. A folder belongs
    to one run: called again for it, this takes up a run that goes on, returns the result of one that ended,
    and starts afresh one that died. Raises LoadError.
    """
    files = RunFiles(folder)
    check_plan(plan, files)
    process, restarted = recall(files)
    # Only now: what a process writes before it is found dead is in the log by then.
    log = RunLog(files.log)
    log.read()
    resumed = process is not None or log.stopped is not None
    if not resumed:
        restarted = files.process.exists()
        process, log = start(plan, files, restarted), RunLog(files.log)
    if process is not None:
        try:
            await follow(process, plan, files, log, on_progress)
        finally:
            await end(process)
    log.read()
    check_end(plan, files, log)
    return LoadResult(plan, tuple(log.windows), log.started, bool(log.stopped), resumed, restarted)


def stop_load(folder: Path) -> None:
    """Tell the run of this folder to end: its users finish their requests and its result is as usual.

    Holds for a run that has not started yet, too: it then ends before its first request.
    """
    folder.mkdir(parents=True, exist_ok=True)
    RunFiles(folder).stop.touch()


def check_plan(plan: LoadPlan, files: RunFiles) -> None:
    if files.plan.exists() and LoadPlan.from_json(files.plan.read_text()) != plan:
        raise LoadError(
            f"{files.folder} holds a run of another plan than the one asked for ({plan}). Its results would be"
            " taken for this plan's. Give each run a folder of its own."
        )


def recall(files: RunFiles) -> tuple[psutil.Process | None, bool]:
    """The process of the run in this folder if it lives, and whether it was a restart."""
    if not files.process.exists():
        return None, False
    noted = json.loads(files.process.read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(noted["pid"])
        # The pid alone may be another program's by now. Start times are derived from the boot time, which
        # moves when the clock is set, so they are compared with some room.
        if abs(process.create_time() - noted["created"]) < 2 and alive(process):
            return process, noted["restarted"]
    return None, noted["restarted"]


def start(plan: LoadPlan, files: RunFiles, restarted: bool) -> psutil.Process:
    files.folder.mkdir(parents=True, exist_ok=True)
    files.plan.write_text(plan.to_json())
    files.log.write_text("")
    # Locust takes options from its environment, where a caller's own would change the plan.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment["VIRTFLOW_LOAD_FOLDER"] = str(files.folder.resolve())
    grace = str(int(LAST_REQUESTS.total_seconds()))
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    with files.output.open("w") as output:
        process = psutil.Popen(
            [*command, "--stop-timeout", grace],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=files.folder,
            env=environment,
            start_new_session=True,
        )
    note = {"pid": process.pid, "created": process.create_time(), "restarted": restarted}
    files.process.write_text(json.dumps(note))
    return process


async def follow(
    process: psutil.Process,
    plan: LoadPlan,
    files: RunFiles,
    log: RunLog,
    on_progress: Callable[[LoadProgress], None],
) -> None:
    allowed = plan.ramp + plan.hold + LAST_REQUESTS + OVERTIME
    reported = 0
    while alive(process):
        log.read()
        if log.errors:
            raise LoadError(f"The locustfile raised an exception:\n{log.errors[0]}")
        if len(log.windows) > reported:
            reported = len(log.windows)
            on_progress(log.windows[-1])
        if time.time() - process.create_time() > allowed.total_seconds():
            raise LoadError(f"Locust still runs {allowed} after its start: it hangs.{last_output(files)}")
        await asyncio.sleep(POLL.total_seconds())


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def end(process: psutil.Process) -> None:
    """Kill what is left of the process and its group, and reap it."""
    if alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # One taken up is not our child, and stays a zombie if whoever inherited it does not reap.
    with contextlib.suppress(psutil.TimeoutExpired):
        await asyncio.shield(asyncio.to_thread(process.wait, 5))


def check_end(plan: LoadPlan, files: RunFiles, log: RunLog) -> None:
    if log.errors:
        raise LoadError(f"The locustfile raised an exception:\n{log.errors[0]}")
    if log.stopped is None:
        raise LoadError(
            f"Locust died before the end of its plan, after {len(log.windows)} s of load on {plan.url}."
            f" The same call again starts afresh.{last_output(files)}"
        )
    if not log.stopped and not any(window.requests for window in log.windows):
        raise LoadError(f"Locust ran to its end without a single request to {plan.url}.{last_output(files)}")


def last_output(files: RunFiles) -> str:
    lines = files.output.read_text(errors="replace").splitlines()[-OUTPUT_LINES:]
    return "\nIts last output:\n" + "\n".join(f"  {line}" for line in lines)
