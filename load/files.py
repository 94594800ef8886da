"""What a caller and the runner say to each other: files in the runner's folder, a folder for each run.

Either side may die at any moment. So each shows signs of life, a file it touches again and again, and all that is
needed to take a run up again is in its folder.
"""

import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

__all__ = ["Pulse", "RunFiles", "heartbeat_of"]


@dataclass(frozen=True)
class RunFiles:
    """Where the things of a run are in its folder."""

    folder: Path

    @property
    def plan(self) -> Path:
        """What to do, put there whole by the caller. Taken away again, the run is withdrawn."""
        return self.folder / "plan.json"

    @property
    def caller(self) -> Path:
        """Touched by the caller while it wants the run."""
        return self.folder / "caller"

    @property
    def log(self) -> Path:
        """What came of it, by the runner."""
        return self.folder / "progress.jsonl"

    @property
    def stop(self) -> Path:
        """There when the run is to end early."""
        return self.folder / "stop"


def heartbeat_of(folder: Path) -> Path:
    """Touched by the runner of this folder; holds its process id, for people."""
    return folder / ".heartbeat"


class Pulse:
    """How long somebody has not touched its file.

    After the first look only changes count, by the monotonic clock: somebody who sets the clock, or a machine
    that was asleep, is not taken for a death.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._touched = self._last_touched()
        self._since = time.monotonic() - max(0.0, time.time() - self._touched)

    def silence(self) -> timedelta:
        if (touched := self._last_touched()) != self._touched:
            self._touched, self._since = touched, time.monotonic()
        return timedelta(seconds=time.monotonic() - self._since)

    def _last_touched(self) -> float:
        try:
            return self._file.stat().st_mtime
        except FileNotFoundError:
            return 0.0
