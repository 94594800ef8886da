"""The real supervisord with small programs."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.endpoints import ClusterError
from clusters.supervisor import Program, ProgramStatus, Supervisor
from clusters.supervisor.daemon import MARK
from clusters.supervisor.processes import marked
from clusters.supervisor.record import Life, Record
from clusters.supervisor.watch import CrashLoops

LIMIT = 30
T = TypeVar("T")
SLEEPS = "import time; print('up', flush=True); time.sleep(600)"


def python(name: str, code: str) -> Program:
    return Program(name, [sys.executable, "-c", code])


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's own: a Unix socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="a 100%(x)s folder ") as folder:
        yield Path(folder)


@pytest.fixture
def supervisor(folder: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(folder)
    try:
        yield supervisor
    finally:
        supervisor.stop()


def wait_until(probe: Callable[[], T]) -> T:
    deadline = time.monotonic() + LIMIT
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def pid_of(supervisor: Supervisor, name: str) -> int | None:
    return next(state.pid for state in supervisor.states() if state.name == name)


def programs_of(supervisor: Supervisor) -> list[ProgramStatus]:
    """Without the watch that is always there."""
    return [state for state in supervisor.states() if state.name != "crash-watch"]


def state_of(supervisor: Supervisor, name: str) -> str:
    return next(state.state for state in supervisor.states() if state.name == name)


def restarts_of(supervisor: Supervisor, name: str) -> int:
    return next(state.restarts for state in supervisor.states() if state.name == name)


def running(supervisor: Supervisor, name: str) -> int:
    """The pid of a program once it has written its line."""
    wait_until(lambda: supervisor.log(name).exists() and "up" in supervisor.log(name).read_text())
    return wait_until(lambda: pid_of(supervisor, name) or 0)


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_programs_start_when_told_to_and_are_running_in_the_end(supervisor: Supervisor, folder: Path) -> None:
    code = f"import os; print(os.getcwd(), '100%', flush=True); {SLEEPS}"
    supervisor.configure([python("one", code), python("two", SLEEPS)])
    assert [(state.name, state.state, state.pid) for state in programs_of(supervisor)] == [
        ("one", "STOPPED", None),
        ("two", "STOPPED", None),
    ]
    supervisor.start("one")
    running(supervisor, "one")
    assert "two" in supervisor.check()
    assert supervisor.check("one") in ([], ["one"])
    assert pid_of(supervisor, "two") is None
    supervisor.start()
    wait_until(lambda: supervisor.check() == [])
    assert supervisor.log("one").read_text().splitlines()[0] == f"{folder} 100%"


def test_what_dies_is_started_again(supervisor: Supervisor) -> None:
    supervisor.configure([python("one", SLEEPS)])
    supervisor.start()
    first = running(supervisor, "one")
    wait_until(lambda: supervisor.check() == [])
    psutil.Process(first).kill()
    second = wait_until(lambda: next((s.pid for s in supervisor.states() if s.pid not in (first, None)), None))
    assert second != first
    wait_until(lambda: supervisor.log("one").read_text().count("up") == 2)


def test_what_keeps_dying_is_given_up_and_its_last_lines_are_shown(supervisor: Supervisor) -> None:
    crash = "for n in range(20): print('line', n)\nraise SystemExit('no such cluster')"
    supervisor.configure([python("one", SLEEPS), python("broken", crash)])
    supervisor.start()

    def given_up() -> str:
        try:
            supervisor.check()
        except ClusterError as error:
            return str(error)
        return ""

    message = wait_until(given_up)
    assert message.startswith("broken does not stay up (FATAL: ")
    assert "\n  line 19\n  no such cluster\nType `make down`" in message
    assert "line 3\n" not in message


def test_a_program_that_is_not_there_is_an_error_with_its_name(supervisor: Supervisor, folder: Path) -> None:
    supervisor.configure([Program("ghost", [folder / "no such program"])])
    with pytest.raises(ClusterError, match=r"ghost cannot be started: NO_FILE: .*ghost\.log"):
        supervisor.start()


def test_a_second_start_changes_nothing(supervisor: Supervisor) -> None:
    programs = [python("one", SLEEPS), python("two", SLEEPS)]
    supervisor.configure(programs)
    supervisor.start()
    before = (supervisor.pid(), running(supervisor, "one"), running(supervisor, "two"))
    supervisor.configure(programs)
    supervisor.start()
    assert (supervisor.pid(), pid_of(supervisor, "one"), pid_of(supervisor, "two")) == before


def test_new_and_changed_programs_are_taken_in_and_others_left_alone(supervisor: Supervisor) -> None:
    supervisor.configure([python("same", SLEEPS), python("other", SLEEPS), python("dropped", SLEEPS)])
    supervisor.start()
    same, dropped = running(supervisor, "same"), running(supervisor, "dropped")
    running(supervisor, "other")
    supervisor.configure(
        [python("same", SLEEPS), python("other", SLEEPS.replace("up", "up anew")), python("new", SLEEPS)]
    )
    supervisor.start()
    running(supervisor, "new")
    wait_until(lambda: "up anew" in supervisor.log("other").read_text())
    assert pid_of(supervisor, "same") == same
    assert not psutil.pid_exists(dropped)
    assert [state.name for state in programs_of(supervisor)] == ["new", "other", "same"]


def test_restart_ends_one_program_and_starts_it(supervisor: Supervisor) -> None:
    supervisor.configure([python("one", SLEEPS), python("two", SLEEPS)])
    supervisor.start("one")
    first = running(supervisor, "one")
    supervisor.restart("one")
    assert wait_until(lambda: pid_of(supervisor, "one")) != first
    supervisor.restart("two")
    assert running(supervisor, "two")


LEAVES_SLOWLY = (
    "import signal, sys, time; "
    "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(3), print('left', flush=True), sys.exit())); " + SLEEPS
)


@pytest.mark.parametrize(("seconds", "may_leave"), [(1, False), (LIMIT, True)])
def test_a_program_has_its_own_time_to_leave(supervisor: Supervisor, seconds: int, may_leave: bool) -> None:
    command = python("slow", LEAVES_SLOWLY).command
    supervisor.configure([Program("slow", command, stop_limit=timedelta(seconds=seconds))])
    supervisor.start()
    running(supervisor, "slow")
    supervisor.stop_program("slow")
    assert ("left" in supervisor.log("slow").read_text()) == may_leave


def test_a_program_that_is_killed_gets_no_time_to_take_leave_and_stays_down(supervisor: Supervisor) -> None:
    leave = "time.sleep(20); print('left', flush=True); sys.exit()"
    code = f"import signal, sys, time\ndef leave(*_): {leave}\nsignal.signal(signal.SIGTERM, leave)\n{SLEEPS}"
    supervisor.configure([replace(python("slow", code), stop_limit=timedelta(seconds=60))])
    supervisor.start()
    first = running(supervisor, "slow")
    supervisor.kill_program("slow")
    assert "left" not in supervisor.log("slow").read_text()
    assert state_of(supervisor, "slow") == "STOPPED"
    supervisor.kill_program("slow")
    supervisor.start("slow")
    assert wait_until(lambda: pid_of(supervisor, "slow") or 0) != first


def test_stop_finds_a_supervisor_that_has_not_written_its_pid(supervisor: Supervisor, folder: Path) -> None:
    supervisor.configure([python("one", SLEEPS)])
    supervisor.start()
    daemon, one = psutil.Process(supervisor.pid()), psutil.Process(running(supervisor, "one"))
    (folder / "supervisord.pid").unlink()
    supervisor.stop()
    assert [process for process in (daemon, one) if runs(process)] == []


def test_stop_leaves_no_process_whoever_started_it(supervisor: Supervisor, folder: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPS!r}], start_new_session=True)"
    supervisor.configure([python("stubborn", stubborn), python("parent", f"{parent}; {SLEEPS}")])
    supervisor.start()
    running(supervisor, "stubborn")
    wait_until(lambda: supervisor.log("parent").exists() and supervisor.log("parent").read_text().count("up") == 2)
    family = marked(MARK, str(folder))
    # supervisord, its watch, two programs and the child of one.
    wait_until(lambda: len(marked(MARK, str(folder))) == 5)
    supervisor.stop()
    assert [process for process in family if runs(process)] == []
    assert marked(MARK, str(folder)) == []
    assert supervisor.pid() is None
    assert {state.state for state in supervisor.states()} == {"STOPPED"}
    supervisor.stop()

    supervisor.configure([python("stubborn", stubborn)])
    supervisor.start()
    assert wait_until(lambda: pid_of(Supervisor(folder), "stubborn"))


def test_supervisord_and_all_it_kept_come_back_after_it_was_killed(supervisor: Supervisor, folder: Path) -> None:
    supervisor.configure([python("one", SLEEPS)])
    supervisor.start()
    first, daemon = psutil.Process(running(supervisor, "one")), supervisor.pid()
    assert daemon is not None
    wait_until(lambda: supervisor.check() == [])
    psutil.Process(daemon).kill()
    wait_until(lambda: supervisor.pid() not in (None, daemon))
    wait_until(lambda: supervisor.log("one").read_text().count("up") == 2)
    second = wait_until(lambda: pid_of(supervisor, "one"))
    # The first one had lost its keeper: it must not go on beside the second.
    assert second != first.pid
    assert not runs(first)
    wait_until(lambda: len(marked(MARK, str(folder))) == 3)


def test_the_watch_comes_back_after_it_was_killed_and_goes_on_counting(supervisor: Supervisor) -> None:
    supervisor.configure([python("one", SLEEPS)])
    supervisor.start()
    running(supervisor, "one")
    wait_until(lambda: supervisor.check() == [])
    for expected in (1, 2):
        psutil.Process(wait_until(lambda: pid_of(supervisor, "one"))).kill()
        wait_until(lambda count=expected: restarts_of(supervisor, "one") == count)  # type: ignore[misc]
        watch = wait_until(lambda: pid_of(supervisor, "crash-watch"))
        psutil.Process(watch).kill()
        wait_until(lambda old=watch: pid_of(supervisor, "crash-watch") not in (None, old))  # type: ignore[misc]
        wait_until(lambda: supervisor.check() == [])


def test_the_watch_hears_of_all_that_happens_while_it_starts(supervisor: Supervisor) -> None:
    names = [f"program-{number}" for number in range(12)]
    supervisor.configure([python(name, "raise SystemExit(1)") for name in names])
    supervisor.start()
    wait_until(lambda: all(restarts_of(supervisor, name) >= 1 for name in names))
    assert "overflowed" not in supervisor.log("supervisord").read_text()


def test_a_program_that_dies_again_and_again_after_its_start_is_given_up(supervisor: Supervisor) -> None:
    # Each life is long enough for supervisord to call it running.
    supervisor.configure([python("one", "import time; print('up', flush=True); time.sleep(600)")])
    supervisor.start()
    for _ in range(CrashLoops.deaths):
        wait_until(lambda: supervisor.check() == [])
        psutil.Process(wait_until(lambda: pid_of(supervisor, "one"))).kill()
        wait_until(lambda: supervisor.states() and state_of(supervisor, "one") != "RUNNING")
    wait_until(lambda: state_of(supervisor, "one") == "FATAL")
    with pytest.raises(ClusterError, match=r"(?s)one does not stay up \(FATAL: it died 6 times .*\n  up\n"):
        supervisor.check()
    assert restarts_of(supervisor, "one") == CrashLoops.deaths
    # Until somebody starts it again.
    supervisor.start()
    wait_until(lambda: supervisor.check() == [])


@given(st.lists(st.floats(0, 300), max_size=40).map(sorted), st.integers(1, 3))
def test_a_loop_is_so_many_deaths_of_one_program_within_the_time(times: list[float], programs: int) -> None:
    loops = CrashLoops()
    since: dict[int, list[float]] = {program: [] for program in range(programs)}
    for number, now in enumerate(times):
        program = number % programs
        lately = [time for time in since[program] if now - time <= CrashLoops.within.total_seconds()] + [now]
        is_loop = len(lately) >= CrashLoops.deaths
        assert loops.died(str(program), now) is is_loop
        since[program] = [] if is_loop else [*since[program], now]


def test_a_death_that_heals_itself_is_no_failure(supervisor: Supervisor) -> None:
    supervisor.configure([python("one", SLEEPS)])
    supervisor.start()
    first = running(supervisor, "one")
    wait_until(lambda: supervisor.check() == [])
    psutil.Process(first).kill()
    wait_until(lambda: supervisor.check("one") == ["one"])
    wait_until(lambda: supervisor.check() == [])
    assert pid_of(supervisor, "one") != first


def test_a_program_that_supervisord_does_not_know_cannot_be_restarted(supervisor: Supervisor) -> None:
    supervisor.configure([])
    with pytest.raises(ClusterError, match="ghost"):
        supervisor.restart("ghost")


ANSWER_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HTTP/1.1 2",
        ANSWER_HEAD + b"Content-Length: 100\r\n\r\n<?xml version='1.0'?>",
        # Without a length, its end is where the connection ends.
        ANSWER_HEAD + b"\r\n<?xml version='1.0'?><methodResponse><par",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_supervisord_that_is_killed_in_the_middle_of_an_answer_gave_none(
    supervisor: Supervisor, folder: Path, part: bytes
) -> None:
    supervisor.configure([python("one", SLEEPS)])
    (folder / "supervisor.sock").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "supervisor.sock"))
        server.listen()
        server.settimeout(LIMIT)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(part)

        answering = threading.Thread(target=answer)
        answering.start()
        states = programs_of(supervisor)
        answering.join()
    assert [(state.name, state.state) for state in states] == [("one", "STOPPED")]


@pytest.mark.parametrize("text", ["", "[]", '{"one": {"lives": 9}}', '{"one": 1}'])
def test_a_record_that_another_version_wrote_is_not_believed(folder: Path, text: str) -> None:
    record = Record(folder / "restarts.json")
    record.file.write_text(text)
    assert record.read()["one"] == Life()
    record.write({"one": Life(2, "why")})
    assert record.read()["one"] == Life(2, "why")


@pytest.mark.parametrize("text", ["", "not a number", "999999999", "stranger"])
def test_a_stale_pid_file_is_not_believed(supervisor: Supervisor, folder: Path, text: str) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.DEVNULL) as stranger:
        try:
            (folder / "supervisord.pid").write_text(text.replace("stranger", str(stranger.pid)))
            assert supervisor.pid() is None
            supervisor.stop()
            assert stranger.poll() is None
            supervisor.configure([])
            assert supervisor.pid() not in (None, stranger.pid)
        finally:
            stranger.kill()


def test_a_folder_whose_socket_path_is_too_long_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    # In characters it would fit; in bytes it does not.
    folder = tmp_path / ("ü" * ((98 - len(os.fsencode(tmp_path))) // 2))
    with pytest.raises(ClusterError, match="Set VIRTFLOW_STATE_HOME to a shorter folder"):
        Supervisor(folder).configure([])


def test_a_supervisord_that_does_not_start_is_an_error_with_its_reason(supervisor: Supervisor, folder: Path) -> None:
    (folder / "supervisord.log").mkdir()
    with pytest.raises(ClusterError, match=r"(?s)supervisord did not start: .*Is a directory: .*supervisord\.log"):
        supervisor.configure([])
