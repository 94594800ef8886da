"""Callers against the real program, kept by a small supervisor, and a bare HTTP server that counts for itself."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from load import runner
from load.files import RunFiles, heartbeat_of
from load.results import LoadPlan, LoadProgress, LoadResult
from load.runner import LoadError, await_begin, run_load, stop_load

pytestmark = pytest.mark.anyio

PLAN = LoadPlan(
    "http://127.0.0.1:9/",
    users=4,
    ramp=timedelta(),
    hold=timedelta(seconds=2),
    rate=10.0,
    requests_per_connection=5,
)
PLANNED = 80
"""Requests of that plan, if the server keeps nobody waiting: users know when theirs are due."""
LONG = timedelta(minutes=5)
ROOM = 60

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Server:
    """Answers every request with one status, after `delay`."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.delay = 0.0
        self.requests: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.url = ""
        self._connections: set[object] = set()

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self._connections.add(request.protocol)
        self.requests[request.path] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        return web.Response(status=self.status, text="ok")

    def plan(self, path: str = "", **changes: object) -> LoadPlan:
        return replace(PLAN, url=self.url + path, **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    # It closes whatever is open at the end, which asyncio's own server does not.
    program = web.ServerRunner(web.Server(answer), shutdown_timeout=0)
    await program.setup()
    try:
        await web.TCPSite(program, "127.0.0.1", 0).start()
        async with asyncio.timeout(60):
            yield "http://127.0.0.1:{1}/".format(*program.addresses[0])
    finally:
        await program.cleanup()


@contextlib.asynccontextmanager
async def serving(status: int = 200) -> AsyncIterator[Server]:
    server = Server(status)
    async with listening(server.answer) as server.url:
        yield server


class Supervisor:
    """Starts `python -m load` again whenever it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ends = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.folder.with_suffix(".log").open("ab") as log:
            command = [sys.executable, "-m", "load", str(self.folder), "--max-users", str(ROOM)]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._ends:
                return
            self._process = self._start()

    def kill(self) -> None:
        os.kill(int(heartbeat_of(self.folder).read_text()), signal.SIGKILL)

    def end(self) -> None:
        self._ends = True
        while self._thread.is_alive():
            self._process.kill()
            self._thread.join(0.1)


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path_factory.mktemp("a cluster") / "all loads")
    yield supervisor
    supervisor.end()


@pytest.fixture
def folder(supervisor: Supervisor, request: pytest.FixtureRequest) -> Path:
    """Of one run, or the start of the names of some."""
    return supervisor.folder / f"{request.node.name} 1"


def beside(folder: Path, name: object) -> Path:
    return folder.with_name(f"{folder.name}, {name}")


def ignore(_: LoadProgress) -> None: ...


async def put(folder: Path) -> None:
    """The first thing that a call does when it runs at all is to put its plan."""
    await asyncio.sleep(0)
    assert RunFiles(folder).plan.exists()


def began(result: LoadResult) -> float:
    return (result.windows[0].time - result.windows[0].elapsed).timestamp()


def ended(result: LoadResult) -> float:
    return result.windows[-1].time.timestamp()


async def test_a_run_reports_on_the_way_and_is_not_repeated(folder: Path) -> None:
    seen: list[LoadProgress] = []
    async with serving() as server:
        result = await run_load(server.plan(), folder, seen.append)
        connections = server.connections
        again = await run_load(server.plan(), folder, ignore)
        assert server.requests == {"/": result.requests}
    assert (result.requests, result.failures, result.never_started) == (PLANNED, {}, 0)
    assert (result.stopped, result.resumed, result.restarted) == (False, False, False)
    assert seen
    assert all(window in result.windows for window in seen)
    assert max(window.users for window in result.windows) == PLAN.users
    # Every fifth request of a user is the last of its connection, and its first and last are not of whole ones.
    assert PLANNED // 5 <= connections <= PLANNED // 5 + PLAN.users
    assert again == replace(result, resumed=True)


async def test_failures_are_counted_by_kind_and_no_percentile_hides_them(folder: Path) -> None:
    async with serving(503) as server:
        result = await run_load(server.plan(), folder, ignore)
    refused = await run_load(server.plan(), beside(folder, "refused"), ignore)
    assert set(result.failures) == {"HTTP 503"}
    assert set(refused.failures) == {"ConnectionRefusedError"}
    assert result.latencies.n == result.latencies.failed == result.requests > 0
    assert result.latencies.p50 is None


async def test_a_server_that_drips_holds_up_no_end(folder: Path) -> None:
    """Each byte comes soon after the last, and the answer never."""

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b".")
                await asyncio.sleep(0.2)
        return response

    async with listening(drip) as url:
        result = await run_load(replace(PLAN, url=url), folder, ignore)
    assert result.failures == {"TimeoutError": PLAN.users}


async def test_many_at_once_each_have_their_own_counts(folder: Path) -> None:
    async with serving() as server:
        users = [1 + number % 5 for number in range(20)]
        plans = [server.plan(f"{number}", users=n, rate=5.0 + n) for number, n in enumerate(users)]
        results = await asyncio.gather(
            *(run_load(plan, beside(folder, number), ignore) for number, plan in enumerate(plans))
        )
    assert server.requests == {f"/{number}": result.requests for number, result in enumerate(results)}
    assert all(
        abs(result.requests - plan.users * plan.rate * 2) <= plan.users
        for plan, result in zip(plans, results, strict=True)
    )
    assert all(result.never_started == 0 and not result.failures for result in results)


async def test_turns_are_in_the_order_of_arrival_and_the_bound_holds(folder: Path) -> None:
    async with serving() as server, asyncio.TaskGroup() as tasks:
        # As long as the pause between requests: a user has one under way at nearly every moment.
        server.delay = 0.1
        runs = []
        for number, users in enumerate((40, 40, 10)):
            own = beside(folder, number)
            runs.append(tasks.create_task(run_load(server.plan(users=users), own, ignore)))
            await put(own)
    first, second, small = (run.result() for run in runs)
    # The small one would have had room beside the first.
    assert ended(first) <= began(second) <= began(small)
    assert first.waited < second.waited
    assert 40 < server.most_at_once <= 50
    assert [run.never_started for run in (first, second, small)] == [0, 0, 0]


async def test_more_users_than_there_is_room_for_are_refused(folder: Path) -> None:
    async with serving() as server:
        with pytest.raises(LoadError, match="for 61 users, and Locust has 60"):
            await run_load(server.plan(users=ROOM + 1), folder, ignore)
        result = await run_load(server.plan(users=ROOM), beside(folder, "whole room"), ignore)
    assert (result.started, server.connections > 0) == (ROOM, True)


async def test_a_stop_ends_one_early_and_leaves_the_others(folder: Path) -> None:
    async with serving() as server:
        stopped = beside(folder, "stopped")

        def stop(progress: LoadProgress) -> None:
            if progress.requests:
                stop_load(stopped)

        plan = server.plan("stopped", ramp=LONG, users=50)
        result, other = await asyncio.gather(
            run_load(plan, stopped, stop), run_load(server.plan("other"), folder, ignore)
        )
    assert result.stopped
    assert result.never_started > 40
    assert (other.stopped, other.requests) == (False, PLANNED)
    assert server.requests == {"/stopped": result.requests, "/other": PLANNED}


async def test_a_stop_before_the_start_sends_nothing(folder: Path) -> None:
    stop_load(folder)
    async with serving() as server:
        result = await run_load(server.plan(hold=LONG), folder, ignore)
    assert (result.stopped, result.requests, server.connections) == (True, 0, 0)
    assert result.never_started == PLAN.users


async def test_a_stop_in_the_queue_needs_no_turn(folder: Path) -> None:
    async with serving() as server:
        blocking = asyncio.create_task(run_load(server.plan(users=ROOM, hold=LONG), folder, ignore))
        await await_begin(folder)
        queued = beside(folder, "queued")
        waiting = asyncio.create_task(run_load(server.plan("queued"), queued, ignore))
        await put(queued)
        stop_load(queued)
        result = await waiting
        stop_load(folder)
        await blocking
    assert (result.stopped, result.requests, server.requests["/queued"]) == (True, 0, 0)


async def test_cancelled_it_ends_the_load_and_may_be_asked_for_again(folder: Path) -> None:
    async with serving() as server:
        plan = server.plan()
        started = asyncio.Event()
        load = asyncio.create_task(run_load(plan, folder, lambda _: started.set()))
        await started.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        sent = server.requests.total()
        result = await run_load(plan, folder, ignore)
    assert server.requests.total() == sent + PLANNED
    assert (result.requests, result.resumed, result.restarted) == (PLANNED, False, True)


async def test_cancelled_by_who_hands_it_on_it_goes_on(folder: Path) -> None:
    async with serving() as server:
        plan, started = server.plan(), asyncio.Event()
        load = asyncio.create_task(run_load(plan, folder, lambda _: started.set(), is_handed_on=lambda: True))
        await started.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        result = await run_load(plan, folder, ignore)
    assert (result.resumed, result.restarted) == (True, False)
    assert result.requests == server.requests.total() > 0


KILLED_CALLER = """
import asyncio, os, signal, sys
from pathlib import Path
from load import results, runner
folder = Path(sys.argv[1])
plan = results.LoadPlan.from_json(sys.argv[2])
asyncio.run(runner.run_load(plan, folder, lambda _: os.kill(os.getpid(), signal.SIGKILL)))
"""


async def test_a_run_that_goes_on_is_taken_up(folder: Path) -> None:
    async with serving() as server:
        plan = server.plan()
        caller = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_CALLER, folder, plan.to_json())
        assert await caller.wait() == -signal.SIGKILL
        result = await run_load(plan, folder, ignore)
    assert (result.resumed, result.restarted) == (True, False)
    assert result.requests == server.requests.total() == PLANNED


async def test_what_a_killed_locust_left_is_begun_afresh_and_says_so(supervisor: Supervisor, folder: Path) -> None:
    async with serving() as server:
        before: list[int] = []

        def kill(progress: LoadProgress) -> None:
            if progress.requests and not before:
                before.append(server.requests.total())
                supervisor.kill()

        finished = await run_load(server.plan("finished"), beside(folder, "finished"), ignore)
        plans = {path: server.plan(path, hold=timedelta(seconds=3)) for path in ("a", "b")}
        results = await asyncio.gather(*(run_load(plan, beside(folder, path), kill) for path, plan in plans.items()))
        again = await run_load(server.plan("finished"), beside(folder, "finished"), ignore)
    assert before
    assert [(result.restarted, result.resumed, result.requests) for result in results] == [(True, False, 120)] * 2
    assert again == replace(finished, resumed=True)
    assert server.requests["/finished"] == PLANNED


async def test_a_second_locust_does_not_serve_the_same_folder(supervisor: Supervisor, folder: Path) -> None:
    async with serving() as server:
        await run_load(server.plan(), folder, ignore)
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "load", supervisor.folder, stderr=subprocess.PIPE
    )
    _, said = await second.communicate()
    assert second.returncode == 1
    assert b"carries out the loads" in said


async def test_a_folder_is_for_one_plan(folder: Path) -> None:
    stop_load(folder)
    await run_load(PLAN, folder, ignore)
    with pytest.raises(LoadError, match="another plan"):
        await run_load(replace(PLAN, users=5), folder, ignore)


async def test_an_exception_in_a_user_is_a_load_error_that_shows_why(folder: Path) -> None:
    with pytest.raises(LoadError, match="Invalid IPv6 URL"):
        await run_load(replace(PLAN, url="http://[no address/"), folder, ignore)


async def test_what_a_cluster_that_was_taken_down_left_is_not_made_again(folder: Path) -> None:
    async with serving() as server:

        def take_down(_: LoadProgress) -> None:
            shutil.rmtree(folder)

        with pytest.raises(LoadError, match="taken down"):
            await run_load(server.plan(hold=LONG), folder, take_down)
    assert not RunFiles(folder).folder.exists()


async def test_nobody_waits_for_a_locust_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SILENCE_LIMIT", timedelta(seconds=0.5))
    files = RunFiles(tmp_path / "run")
    with pytest.raises(LoadError, match="`virtflow logs load`"):
        await run_load(PLAN, files.folder, ignore)
    # Or a Locust that comes back would begin what nobody waits for.
    assert not files.plan.exists()


def test_callers_do_not_import_locust() -> None:
    program = "import sys, load.runner, load.results; sys.exit(bool({'locust', 'gevent'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
