"""The runner against the real Locust and a bare HTTP server: what it does about processes is not worth faking."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from load import runner
from load.results import LoadPlan, LoadProgress, RunFiles
from load.runner import LoadError, run_load, stop_load

pytestmark = pytest.mark.anyio

PLAN = LoadPlan(
    "http://127.0.0.1:9/",
    users=4,
    ramp=timedelta(),
    hold=timedelta(seconds=2),
    rate=10.0,
    requests_per_connection=5,
)
LONG = timedelta(minutes=5)


class Server:
    """Answers every request with one status, and counts the connections."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.connections = 0
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            close = False
            while not close:
                head = await reader.readuntil(b"\r\n\r\n")
                close = b"connection: close" in head.lower()
                hint = "Connection: close\r\n" if close else ""
                writer.write(f"HTTP/1.1 {self.status}\r\n{hint}Content-Length: 2\r\n\r\nok".encode())
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(status: str = "200 OK") -> AsyncIterator[Server]:
    server = Server(status)
    listener = await asyncio.start_server(server.talk, "127.0.0.1", 0)
    server.url = "http://127.0.0.1:{1}/".format(*listener.sockets[0].getsockname())
    async with listener:
        yield server


def ignore(_: LoadProgress) -> None: ...


async def test_a_run_reports_on_the_way_and_is_not_repeated(tmp_path: Path) -> None:
    seen: list[LoadProgress] = []
    async with serving() as server:
        plan = replace(PLAN, url=server.url)
        result = await run_load(plan, tmp_path, seen.append)
        connections = server.connections
        again = await run_load(plan, tmp_path, ignore)
    assert result.requests > 20
    assert (result.failures, result.never_started) == ({}, 0)
    assert (result.stopped, result.resumed, result.restarted) == (False, False, False)
    assert seen
    assert all(window in result.windows for window in seen)
    # Every fifth request of a user is the last of its connection; at most one more is open for each user.
    assert result.requests // 5 <= connections <= result.requests // 5 + 2 * PLAN.users
    assert again == replace(result, resumed=True)


async def test_failures_are_counted_by_kind_and_no_percentile_hides_them(tmp_path: Path) -> None:
    async with serving("503 Service Unavailable") as server:
        result = await run_load(replace(PLAN, url=server.url), tmp_path / "503", ignore)
    refused = await run_load(replace(PLAN, url=server.url), tmp_path / "refused", ignore)
    assert set(result.failures) == {"HTTP 503"}
    assert set(refused.failures) == {"ConnectionRefusedError"}
    assert result.latencies.n == result.latencies.failed == result.requests > 0
    assert result.latencies.p50 is None


async def test_a_stop_ends_it_early_with_a_result(tmp_path: Path) -> None:
    async with serving() as server, asyncio.timeout(30):
        plan = replace(PLAN, url=server.url, ramp=LONG, users=3000, rate=1.0)

        def stop(progress: LoadProgress) -> None:
            if progress.requests:
                stop_load(tmp_path)

        result = await run_load(plan, tmp_path, stop)
    assert result.stopped
    assert result.requests > 0
    assert result.never_started > 2000


async def test_a_stop_before_the_start_sends_nothing(tmp_path: Path) -> None:
    stop_load(tmp_path)
    async with serving() as server, asyncio.timeout(30):
        result = await run_load(replace(PLAN, url=server.url, hold=LONG), tmp_path, ignore)
    assert (result.stopped, result.requests, server.connections) == (True, 0, 0)
    assert result.never_started == PLAN.users


async def test_cancelled_it_leaves_no_process(tmp_path: Path) -> None:
    started = asyncio.Event()
    async with serving() as server, asyncio.timeout(30):
        plan = replace(PLAN, url=server.url, hold=LONG)
        load = asyncio.create_task(run_load(plan, tmp_path, lambda _: started.set()))
        await started.wait()
        process, _ = runner.recall(RunFiles(tmp_path))
        assert process is not None
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
    assert not psutil.pid_exists(process.pid)


KILLED_CALLER = """
import asyncio, os, signal, sys
from pathlib import Path
from load import results, runner
folder = Path(sys.argv[1])
plan = results.LoadPlan.from_json((folder / "asked.json").read_text())
asyncio.run(runner.run_load(plan, folder, lambda _: os.kill(os.getpid(), signal.SIGKILL)))
"""


async def test_a_run_that_goes_on_is_taken_up(tmp_path: Path) -> None:
    async with serving() as server, asyncio.timeout(30):
        plan = replace(PLAN, url=server.url)
        (tmp_path / "asked.json").write_text(plan.to_json())
        caller = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_CALLER, tmp_path)
        assert await caller.wait() == -signal.SIGKILL
        process, _ = runner.recall(RunFiles(tmp_path))
        assert process is not None
        result = await run_load(plan, tmp_path, ignore)
    assert (result.resumed, result.restarted) == (True, False)
    assert result.started == PLAN.users
    assert not runner.alive(process)


async def test_a_run_that_died_is_started_afresh_and_says_so(tmp_path: Path) -> None:
    async with serving() as server, asyncio.timeout(30):
        plan = replace(PLAN, url=server.url)

        def kill(_: LoadProgress) -> None:
            process, _restarted = runner.recall(RunFiles(tmp_path))
            assert process is not None
            process.kill()

        with pytest.raises(LoadError, match="died before the end"):
            await run_load(replace(plan), tmp_path, kill)
        result = await run_load(plan, tmp_path, ignore)
    assert (result.resumed, result.restarted) == (False, True)
    assert result.never_started == 0


async def test_a_folder_is_for_one_plan(tmp_path: Path) -> None:
    files = RunFiles(tmp_path)
    files.plan.write_text(PLAN.to_json())
    with pytest.raises(LoadError, match="another plan"):
        await run_load(replace(PLAN, users=5), tmp_path, ignore)
    assert not files.process.exists()


BROKEN_TASK = """
from load.locustfile import Client, Shape
class Broken(Client):
    def ask(self): raise ZeroDivisionError("in a task")
    tasks = [ask]
del Client
"""


@pytest.mark.parametrize(
    ("locustfile", "says"),
    [("import no_such_module", "no_such_module"), (BROKEN_TASK, "in a task")],
    ids=["import", "task"],
)
async def test_a_broken_locustfile_is_a_load_error_that_shows_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locustfile: str, says: str
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text(locustfile)
    monkeypatch.setattr(runner, "LOCUSTFILE", broken)
    with pytest.raises(LoadError, match=says):
        await run_load(PLAN, tmp_path / "run", ignore)


def test_the_runner_does_not_import_locust() -> None:
    program = "import sys, load.runner, load.results; sys.exit(bool({'locust', 'gevent'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
