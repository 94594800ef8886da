"""How often each program died, and which were given up: written by the watch, read by whoever shows a status."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from virtflow.files import write_whole

__all__ = ["Life", "Record"]


@dataclass
class Life:
    """One program's."""

    restarts: int = 0
    given_up: str = ""
    """Why it is not started again; empty while it is."""


@dataclass(frozen=True)
class Record:
    """A file of JSON. There is one writer at a time; a reader sees a whole version of it."""

    file: Path

    def read(self) -> defaultdict[str, Life]:
        """Empty if there is none, or one that another version wrote: counts are not worth an error."""
        try:
            lives = json.loads(self.file.read_text())
            return defaultdict(Life, {program: Life(**life) for program, life in lives.items()})
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return defaultdict(Life)

    def write(self, lives: dict[str, Life]) -> None:
        lines = json.dumps({program: asdict(life) for program, life in lives.items()}, indent=1)
        write_whole(self.file, lines + "\n")
