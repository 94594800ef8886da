"""Ctrl-C, SIGTERM (CI ends a job) and SIGHUP (a terminal is closed): the first undoes what was started.

Undoing takes seconds, and what it leaves somebody else has to find. So the second Ctrl-C is only told what is
happening, and the third is obeyed. Machines are not: they often send two signals, or the same one by two ways.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from virtflow.exit_codes import ExitCode
from virtflow.terminal import phase

__all__ = ["Interrupts", "undo"]


def undo(title: str, action: Callable[[], None]) -> None:
    """Do it to its end, as a phase. Where the first interrupt comes meanwhile, it is done again, then raised."""
    try:
        with phase(title):
            action()
    except KeyboardInterrupt:
        with phase(title):
            action()
        raise


class Interrupts:
    """The process's handler of all three; raises KeyboardInterrupt once."""

    def __init__(self) -> None:
        self.asked = False
        self._told = False
        self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._answer)

    def _answer(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._forget_terminal()
        if not self.asked:
            self.asked = True
            raise KeyboardInterrupt
        if not self._told:
            self._told = True
            _say("Still undoing what was started. Ctrl-C once more to leave it as it is.")
        elif number == signal.SIGINT:
            _leave()

    def _forget_terminal(self) -> None:
        """Writing to a terminal that is gone is an error, which would end the undoing."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._terminals:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _leave() -> NoReturn:
    _say("Left as it is. `virtflow status` shows what still runs, `virtflow down` takes it down.")
    os._exit(ExitCode.INTERRUPTED)


def _say(text: str) -> None:
    # Past sys.stderr: the signal may have come in the middle of its own writing.
    os.write(2, f"\n{text}\n".encode())
