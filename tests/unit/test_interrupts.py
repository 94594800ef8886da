"""What a signal does to a program that undoes, seen from outside it, in a terminal of its own."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, pathlib, select, sys
from virtflow.interrupts import Interrupts, undo

Interrupts().install()
gate = os.open(sys.argv[1], os.O_RDONLY)

def wait_at_gate():
    # In short pieces: Python does not notice a signal that comes just before a call that blocks.
    while not select.select([gate], [], [], 0.05)[0]:
        pass
    os.read(gate, 1)

def action():
    # The undoing ends when the test says so.
    print("undoing", flush=True)
    wait_at_gate()
    print("in the terminal", flush=True)
    pathlib.Path(sys.argv[2]).touch()

try:
    if sys.argv[3] == "at work":
        print("working", flush=True)
        wait_at_gate()
    else:
        undo("Undoing", action)
except KeyboardInterrupt:
    if sys.argv[3] == "at work":
        undo("Undoing", action)
    sys.exit(130)
"""


class Program:
    """PROGRAM in a pseudo-terminal. Its undoing waits at a gate (a fifo) and leaves a mark."""

    def __init__(self, folder: Path, begins: str) -> None:
        self.gate, self.mark = folder / "gate", folder / "mark"
        os.mkfifo(self.gate)
        # Open for both, so that neither end waits for the other one to open, and what is written stays.
        self.gate_end = os.open(self.gate, os.O_RDWR)
        self.terminal, end = pty.openpty()
        command = [sys.executable, "-c", PROGRAM, str(self.gate), str(self.mark), begins]
        env = {**os.environ, "TERM": "dumb", "COLUMNS": "200"}
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=end, stdout=end, stderr=end)
        os.close(end)
        self.said = ""

    def until(self, words: str, times: int = 1) -> None:
        while self.said.count(words) < times:
            readable, _, _ = select.select([self.terminal], [], [], 20)
            assert readable, f"It does not say {words!r}: {self.said}"
            try:
                self.said += os.read(self.terminal, 4096).decode()
            except OSError:  # its end of the terminal is closed
                raise AssertionError(f"It ended without {words!r}: {self.said}") from None

    def open_gate(self) -> None:
        """For good: who undoes twice goes through it twice."""
        os.write(self.gate_end, bytes(10))

    def ended(self) -> int:
        return self.process.wait(timeout=20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.gate_end)


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path, "at work")
    program.until("working")
    yield program
    program.close()


@pytest.fixture
def undoing(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path, "undoing")
    program.until("undoing")
    yield program
    program.close()


SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@SIGNALS
def test_a_first_signal_undoes(at_work: Program, number: signal.Signals) -> None:
    at_work.process.send_signal(number)
    if number != signal.SIGHUP:
        at_work.until("undoing")
    at_work.open_gate()
    assert at_work.ended() == 130
    assert at_work.mark.exists()


def test_a_second_ctrl_c_is_told_and_a_third_leaves_all_as_it_is(at_work: Program) -> None:
    at_work.process.send_signal(signal.SIGINT)
    at_work.until("undoing")
    at_work.process.send_signal(signal.SIGINT)
    at_work.until("Still undoing what was started. Ctrl-C once more to leave it as it is.")
    at_work.process.send_signal(signal.SIGINT)
    at_work.until("Left as it is. `virtflow status` shows what still runs, `virtflow down` takes it down.")
    assert at_work.ended() == 130
    assert not at_work.mark.exists()


def test_signals_of_a_machine_never_end_the_undoing(at_work: Program) -> None:
    at_work.process.send_signal(signal.SIGTERM)
    at_work.until("undoing")
    at_work.process.send_signal(signal.SIGTERM)
    at_work.until("Still undoing")
    at_work.process.send_signal(signal.SIGTERM)
    # The terminal goes, too: nothing more can be said.
    os.close(at_work.terminal)
    at_work.process.send_signal(signal.SIGHUP)
    at_work.open_gate()
    assert at_work.ended() == 130
    assert at_work.mark.exists()


@SIGNALS
def test_a_signal_while_undoing_begins_it_again_and_is_obeyed_after(undoing: Program, number: signal.Signals) -> None:
    undoing.process.send_signal(number)
    if number != signal.SIGHUP:
        undoing.until("undoing", times=2)
    undoing.open_gate()
    assert undoing.ended() == 130
    assert undoing.mark.exists()
