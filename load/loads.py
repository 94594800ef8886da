"""All loads of the runner's folder: finds them, lets each have its turn, sees it to its end."""

import logging
from collections.abc import Callable
from pathlib import Path

from load.files import RunFiles
from load.run import Run
from load.turns import Turns

__all__ = ["Loads"]

logger = logging.getLogger(__name__)


class Loads:
    """To be ticked, and nothing of it runs between ticks but the users.

    What is in the folder is the only memory there is: a runner that is started again finds the loads that the
    last one left unfinished, in the same order, and begins them afresh.
    """

    def __init__(self, folder: Path, room: int, need_user: Callable[[Run, int], None]) -> None:
        """`need_user` is called for each user of a load that begins: with the load and the user's place in it."""
        self._folder = folder
        self._need_user = need_user
        self._turns: Turns[Run] = Turns(room)
        self._known: set[str] = set()
        self._deserted: list[Run] = []
        """Found, but nobody shows a sign of life that wants them."""
        self._waiting: list[Run] = []
        self._active: list[Run] = []

    def tick(self) -> None:
        self._find()
        self._let_arrive()
        for run in [run for run in self._waiting if run.called_off]:
            self._turns.leave(run)
            self._begin(run)
        for run in self._turns.admit():
            self._begin(run)
            for index in range(run.plan.users):
                self._need_user(run, index)
        for run in [run for run in self._active if run.tick()]:
            self._turns.leave(run)
            self._active.remove(run)
            if run.withdrawn:
                # It may be asked for again.
                self._known.discard(run.name)

    def _find(self) -> None:
        present = {path.name for path in self._folder.iterdir()}
        self._known &= present
        for name in present - self._known:
            files = RunFiles(self._folder / name)
            if not files.plan.exists():
                continue
            self._known.add(name)
            try:
                run = Run(files)
            except FileNotFoundError:
                # Taken back this very moment.
                self._known.discard(name)
            except (ValueError, KeyError, TypeError):
                # Its caller reads the same, and says so. The other loads must not suffer.
                logger.exception("%s is not what this version writes", files.folder)
            else:
                if not run.finished:
                    self._deserted.append(run)

    def _let_arrive(self) -> None:
        found, self._deserted = self._deserted, []
        for run in sorted(found, key=lambda run: (run.arrived, run.name)):
            if run.taken_back:
                self._known.discard(run.name)
            elif run.deserted:
                self._deserted.append(run)
            elif run.plan.users > self._turns.room:
                run.refuse(
                    f"The load on {run.plan.url} is for {run.plan.users} users, and Locust has "
                    f"{self._turns.room} for all loads together. Ask for fewer users, or give `python -m load` "
                    "more (--max-users)."
                )
            else:
                self._turns.arrive(run, run.plan.users)
                self._waiting.append(run)

    def _begin(self, run: Run) -> None:
        self._waiting.remove(run)
        self._active.append(run)
        run.begin()
