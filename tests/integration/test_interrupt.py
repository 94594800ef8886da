"""An interrupted run leaves nothing: each test brings up a cluster of its own and interrupts at one moment.

What a signal does to a program that undoes is in tests/unit/test_interrupts.py.
"""

import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from virtflow.exit_codes import ExitCode

ROOT = Path(__file__).parents[2]
ENDS_WITHIN = 60


class Run:
    """`virtflow e2e` of one short scenario in a terminal, where each phase is shown when it begins."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._terminal, end = pty.openpty()
        own = {key: value for key, value in os.environ.items() if not key.startswith("VIRTFLOW_")}
        env = {**own, "VIRTFLOW_STATE_HOME": str(home / "state"), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
        command = [sys.executable, "-m", "virtflow", "e2e", "--feature", "A token that nobody issued opens nothing"]
        self.process = subprocess.Popen(
            command, cwd=home, env=env, stdin=end, stdout=end, stderr=end, start_new_session=True
        )
        os.close(end)
        self.said = ""

    def until(self, words: str) -> None:
        """Read until it has said so. Its own waits are bounded: it ends if it never does."""
        while words not in self.said:
            assert self._read(), f"It ended without {words!r}: {self.said}"

    def ctrl_c(self) -> None:
        """To the whole group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self) -> int:
        while self._read():
            pass
        return self.process.wait(ENDS_WITHIN)

    def left(self) -> list[list[str]]:
        """The command lines of the cluster's processes."""
        lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        return [line for line in lines if str(self.home) in " ".join(line)]

    def _read(self) -> bool:
        try:
            said = os.read(self._terminal, 4096).decode(errors="replace")
        except OSError:  # nobody has the other end any more
            return False
        self.said += said
        return bool(said)


@pytest.fixture
def run() -> Iterator[Run]:
    # Not pytest's own temporary folder: a Unix socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="interrupted ") as home:
        run = Run(Path(home))
        yield run
        run.process.kill()
        run.process.wait()


def assert_nothing_is_left(run: Run) -> None:
    assert run.ended() == ExitCode.INTERRUPTED, run.said
    assert "Traceback" not in run.said
    assert run.left() == []
    assert list((run.home / "state").glob("*")) == []


@pytest.mark.parametrize(
    ("moment", "interrupt"),
    [
        ("Starting etcd", Run.ctrl_c),
        ("Waiting until everything answers", lambda run: run.process.terminate()),
    ],
)
def test_interrupted_while_the_cluster_comes_up(run: Run, moment: str, interrupt: Callable[[Run], None]) -> None:
    run.until(moment)
    interrupt(run)
    run.until("Interrupted: taking down cluster local")
    assert_nothing_is_left(run)


def test_interrupted_in_a_scenario_and_once_more_while_it_is_taken_down(run: Run) -> None:
    run.until("Given the tenant")
    run.ctrl_c()
    run.until("Interrupted: taking down cluster local")
    run.ctrl_c()
    run.until("Still undoing what was started.")
    assert_nothing_is_left(run)


def test_interrupted_for_the_first_time_while_it_is_taken_down(run: Run) -> None:
    run.until("Taking down cluster local")
    run.process.terminate()
    assert_nothing_is_left(run)
