"""What the runner makes of its folder, tick by tick, without users."""

import os
import time
from datetime import timedelta
from pathlib import Path

import gevent

from load.files import RunFiles
from load.loads import Loads
from load.results import Ending, LoadPlan, RunLog
from load.run import CALLER_LIMIT, Run
from load.runner import put_plan, stop_load

PLAN = LoadPlan("http://127.0.0.1:9/", users=4, ramp=timedelta(), hold=timedelta(minutes=1))


class World:
    """Loads over one folder, and the users they asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.needed: list[str] = []
        self.loads = Loads(folder, 10, self._need)

    def _need(self, run: Run, index: int) -> None:
        self.needed.append(f"{run.name} {index}")

    def ask(self, name: str, arrived: int) -> RunFiles:
        files = RunFiles(self.folder / name)
        put_plan(PLAN, files)
        os.utime(files.plan, (arrived, arrived))
        return files


def desert(files: RunFiles) -> None:
    past = time.time() - 2 * CALLER_LIMIT.total_seconds()
    os.utime(files.caller, (past, past))


def log_of(files: RunFiles) -> RunLog:
    log = RunLog(files.log)
    log.read()
    return log


def test_turns_go_by_arrival_whatever_the_names(tmp_path: Path) -> None:
    world = World(tmp_path)
    for arrived, name in enumerate(("c", "a", "b")):
        world.ask(name, arrived + 1)
    world.loads.tick()
    assert world.needed == [f"{name} {index}" for name in "ca" for index in range(4)]


def test_a_runner_started_again_keeps_the_order(tmp_path: Path) -> None:
    world = World(tmp_path)
    files = [world.ask(name, arrived + 1) for arrived, name in enumerate(("c", "a", "b"))]
    world.loads.tick()
    again = World(tmp_path)
    again.loads.tick()
    assert again.needed == world.needed
    assert [log_of(one).restarted for one in files] == [True, True, False]
    # It arrived in 1970; what it has waited since is only what it waited for this runner.
    waited = log_of(files[0]).waited
    assert waited is not None
    assert waited < timedelta(days=1)


def test_half_a_line_of_a_killed_runner_does_not_spoil_the_log(tmp_path: Path) -> None:
    files = World(tmp_path).ask("a", 1)
    files.log.write_text('{"waited": 0, "restarted": false}\n{"time": 17')
    log = log_of(files)
    World(tmp_path).loads.tick()
    log.read()
    assert (log.restarted, log.windows) == (True, [])


def test_what_nobody_wants_is_not_begun_until_somebody_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    files = world.ask("a", 1)
    desert(files)
    world.loads.tick()
    assert not files.log.exists()
    files.caller.touch()
    world.loads.tick()
    assert len(world.needed) == PLAN.users


def test_a_load_that_was_deserted_and_taken_back_may_be_asked_for_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    files = world.ask("a", 1)
    desert(files)
    world.loads.tick()
    files.plan.unlink()
    world.loads.tick()
    put_plan(LoadPlan("http://127.0.0.1:9/", 2, timedelta(), timedelta()), files)
    files.caller.touch()
    world.loads.tick()
    assert world.needed == ["a 0", "a 1"]


def test_taken_back_it_makes_room_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    files = [world.ask(name, arrived + 1) for arrived, name in enumerate("abc")]
    world.loads.tick()
    files[0].plan.unlink()
    world.loads.tick()
    world.loads.tick()
    assert log_of(files[0]).ending is Ending.WITHDRAWN
    assert [name[0] for name in world.needed] == ["a"] * 4 + ["b"] * 4 + ["c"] * 4


def test_a_stop_in_the_queue_ends_it_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    files = [world.ask(name, arrived + 1) for arrived, name in enumerate("abc")]
    stop_load(files[2].folder)
    world.loads.tick()
    assert log_of(files[2]).ending is Ending.STOPPED
    assert log_of(files[1]).ending is None


def test_foreign_and_removed_folders_do_not_harm_the_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    removed, foreign = world.ask("removed", 1), world.ask("foreign", 2)
    foreign.plan.write_text("{}")
    (tmp_path / "a file").touch()
    world.loads.tick()
    for file in removed.folder.iterdir():
        file.unlink()
    removed.folder.rmdir()
    world.ask("good", 3)
    world.loads.tick()
    assert world.needed[-1] == "good 3"


def test_a_user_whose_request_ends_with_the_load_ends_too(tmp_path: Path) -> None:
    """gevent forgets who waits for an event that is set already, when the last who waited for it before has left."""
    run = Run(World(tmp_path).ask("a", 1))
    run.begin()
    waiting = gevent.spawn(lambda: list(run.requests_due(3)))
    gevent.idle()
    late = gevent.spawn(lambda: list(run.requests_due(0)))
    waiting.kill(block=False)
    run.over.set()
    late.join(timeout=20)
    assert late.successful()
    assert late.value == []
