"""How often each program died, and which were given up: written by the watch, read by whoever shows a status."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

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
        if not self.file.exists():
            return defaultdict(Life)
        lives = json.loads(self.file.read_text())
        return defaultdict(Life, {program: Life(**life) for program, life in lives.items()})

    def write(self, lives: dict[str, Life]) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({program: asdict(life) for program, life in lives.items()}, indent=1) + "\n")
        new.replace(self.file)
