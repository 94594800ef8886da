"""The test runner as a victim: `virtflow e2e` is killed in one of its steps, and its run resumed, in commands as a
user types them."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clusters.endpoints import ClusterError
from virtflow.settings import Settings

__all__ = ["RUNNER", "Runner"]

RUNNER = "virtflow e2e"
SCENARIO = "A virtual machine that a tenant creates runs"
BEGINS = "Scenario: "
"""What it prints when the cluster is up and the first step is about to be asked for."""
POLL = timedelta(milliseconds=100)
ENDS_WITHIN = timedelta(minutes=10)


class Runner:
    """Runs of one scenario on a cluster that is up, each in a folder of its own, with all that it printed."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._runs = 0
        self.problems: list[str] = []
        self.notes: list[str] = []

    async def kill(self, pause: timedelta) -> tuple[datetime, timedelta]:
        """Begin a run, kill it so long after its scenario began, and resume it: when, and how long that took.

        One that has ended by then is not killed, and must have passed all the same.
        """
        self._runs += 1
        folder = self._folder / f"e2e-{self._runs}"
        folder.mkdir(parents=True)
        try:
            async with asyncio.timeout(ENDS_WITHIN.total_seconds()):
                return await self._kill(folder, pause)
        except TimeoutError:
            raise ClusterError(
                f"{RUNNER} did not end within {ENDS_WITHIN}; {_said(folder)} has what it said."
            ) from None

    async def _kill(self, folder: Path, pause: timedelta) -> tuple[datetime, timedelta]:
        async with self._running(folder, "--feature", SCENARIO) as run:
            # A file tells nobody that it has grown.
            while run.returncode is None and BEGINS not in _said(folder).read_text(errors="replace"):  # noqa: ASYNC110
                await asyncio.sleep(POLL.total_seconds())
            await asyncio.sleep(pause.total_seconds())
            at, began = datetime.now(UTC), time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                run.kill()
            code = await run.wait()
        # Not by whether it ran a moment before: one that has ended cannot be resumed.
        if code == -signal.SIGKILL:
            (report,) = (folder / "reports").iterdir()
            async with self._running(folder, "--resume", report.name) as resumed:
                code = await resumed.wait()
        else:
            self.notes.append(f"{RUNNER} of {folder.name} had ended before its kill")
        if code != 0:
            self.problems.append(f"{RUNNER} ended with {code}; {_said(folder)} has what it said")
        return at, timedelta(seconds=time.monotonic() - began)

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "virtflow", "e2e", *options]

    @contextlib.asynccontextmanager
    async def _running(self, folder: Path, *options: str) -> AsyncIterator[Process]:
        environment = {
            **os.environ,
            "VIRTFLOW_CLUSTER": self._settings.cluster,
            "VIRTFLOW_STATE_HOME": str(self._settings.state_home),
            "PYTHONUNBUFFERED": "1",
        }
        with _said(folder).open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                *self.command(*options),
                cwd=folder,
                env=environment,
                stdout=said,
                stderr=said,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _said(folder: Path) -> Path:
    return folder / "said.txt"
