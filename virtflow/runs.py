"""What is known of a run when the process that ran it is gone: enough to go on with it, or to say why not.

A run is a folder, `reports/<id>/`. Its record says what was asked for and which code and features it began with:
a run that went on under others would have tested neither. Whoever runs it holds a lock, which the system takes back
from a process however it ends; a pid in a file would outlive its process, and then be a stranger's.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated, Any, Self

from pydantic import Field, TypeAdapter, ValidationError

from virtflow.errors import InputError
from virtflow.exit_codes import ExitCode
from virtflow.files import write_whole
from virtflow.settings import CLUSTER_NAME

__all__ = [
    "JOURNAL",
    "NOT_FINISHED",
    "Run",
    "RunRecord",
    "all_runs",
    "checked_id",
    "digests",
    "journal_lines",
]

ROOT = Path(__file__).parents[1]
CODE = ("features", "workflows", "activities", "load", "clusters", "virtflow", "tests/e2e", "pyproject.toml")
RECORD, LOCK = "run.json", ".lock"
JOURNAL = "scenarios.jsonl"
"""In a run's folder: a line of JSON for each scenario that was begun, in their order."""
NOT_FINISHED = "not finished"
"""The `outcome` of a scenario in the journal that was begun and has not ended."""
LOOKED_AT_WITHIN = timedelta(seconds=2)
"""Somebody who only looks whether a run is held has its lock for a moment."""
MOST_NAMES = 8
RUN_ID = re.compile("[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""What may be a label's value."""


@dataclass(frozen=True)
class RunRecord:
    """What a run was asked for, where it runs, and how it ended."""

    id: str
    cluster: Annotated[str, Field(pattern=CLUSTER_NAME)]
    began: datetime
    only: str
    """Words of a feature's or a scenario's name; empty for all."""
    stays: bool
    """Whether the cluster is left up at the end."""
    code: dict[str, str]
    """SHA-256 of each file of code and features, by its path in the checkout."""
    scenarios: int = 0
    cluster_id: str = ""
    """Of the very cluster, as soon as that is up: another one of its name knows nothing of this run."""
    resumed: list[datetime] = field(default_factory=list)
    exit_code: ExitCode | None = None
    """None until it has ended."""


_RECORD = TypeAdapter(RunRecord)


class Run:
    """One run's folder, for its runner and for those who ask about it."""

    def __init__(self, folder: Path, record: RunRecord) -> None:
        self.folder = folder
        self.record = record
        self._lock: IO[str] | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises InputError if there is none, or one that another version of virtflow left."""
        try:
            return cls(folder, _RECORD.validate_json((folder / RECORD).read_text()))
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"There is no run {folder.name!r} in {folder.parent}. `virtflow runs` lists those that there are."
            ) from None
        except ValidationError as error:
            raise InputError(
                f"{folder / RECORD} is not what this version of virtflow writes ({error.error_count()} faults), so "
                "its run cannot be resumed. Start a new one: `virtflow e2e`."
            ) from None

    def begin(self) -> None:
        """From now on the run is known, and this process runs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._hold()
        self.note()

    def take_up(self, code: dict[str, str]) -> None:
        """Become the runner of a run whose own was killed, with this code. Raises InputError if it is no such run."""
        self._hold()
        try:
            self._check(code)
        except InputError:
            self.release()
            raise
        self.note(resumed=[*self.record.resumed, datetime.now(UTC)])

    def _check(self, code: dict[str, str]) -> None:
        # Only now: it may have ended since it was read.
        self.record = self.load(self.folder).record
        if self.record.exit_code is not None:
            raise InputError(
                f"Run {self.record.id} has ended: {self.state}. What was killed can be resumed; what failed is not "
                "tried again. Start a new run: `virtflow e2e`."
            )
        if differing := _differing(self.record.code, code):
            raise InputError(
                f"Run {self.record.id} was begun with other code or features, and would prove nothing if it went on "
                f"under these. Not the same: {_listed(differing)}. Bring back what it began with, or start a new "
                "run: `virtflow e2e`."
            )

    def note(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        write_whole(self.folder / RECORD, _RECORD.dump_json(self.record, indent=1).decode() + "\n")

    def release(self) -> None:
        """Harmless if it is not held."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def is_running(self) -> bool:
        """Whether some process runs it, be it this one."""
        try:
            with (self.folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def was_killed(self) -> bool:
        return self.record.exit_code is None and not self.is_running

    def is_of(self, cluster: str) -> bool:
        """Whether the cluster of this identity is the run's own: any, if it was killed before it had one."""
        return self.record.cluster_id in ("", cluster)

    @property
    def state(self) -> str:
        """A word or two for people."""
        if self.record.exit_code is not None:
            return self.record.exit_code.name.lower().replace("_", " ")
        return "running" if self.is_running else "killed"

    @property
    def finished(self) -> int:
        """How many scenarios have ended."""
        return sum(line["outcome"] != NOT_FINISHED for line in self._journal())

    @property
    def unfinished(self) -> list[str]:
        """Ids of the sessions that were begun, and whose scenarios have not ended."""
        return [line["id"] for line in self._journal() if line["outcome"] == NOT_FINISHED]

    def _journal(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, journal_lines(self.folder))

    def _hold(self) -> None:
        # A child gets no copy of it, or the cluster's processes would hold it when this one is gone.
        lock = (self.folder / LOCK).open("w")
        assert not os.get_inheritable(lock.fileno())
        deadline = time.monotonic() + LOOKED_AT_WITHIN.total_seconds()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    lock.close()
                    raise InputError(
                        f"Run {self.record.id} is running: another process has it in hand, and there is nothing to "
                        "resume."
                    ) from None
                time.sleep(0.05)
            else:
                self._lock = lock
                return


def checked_id(run: str) -> str:
    """Raises InputError for what cannot be a run's id, and would lead out of the folder of reports."""
    if not RUN_ID.fullmatch(run):
        raise InputError(
            f"{run!r} is no run: its id is the name of its folder in reports/. `virtflow runs` lists what there is."
        )
    return run


def journal_lines(folder: Path) -> list[str]:
    """Of a run's folder; none if it has no journal yet."""
    journal = folder / JOURNAL
    # Not splitlines(): what went wrong may have been said with other ends of lines, which JSON leaves as they are.
    return journal.read_text().split("\n")[:-1] if journal.exists() else []


def all_runs(reports: Path) -> list[Run]:
    """Newest first. What is not a run's folder, or one of another version's, is left out."""
    runs = []
    for record in reports.glob(f"*/{RECORD}"):
        with contextlib.suppress(InputError):
            runs.append(Run.load(record.parent))
    return sorted(runs, key=lambda run: (run.record.began, run.record.id), reverse=True)


def digests(root: Path = ROOT) -> dict[str, str]:
    """SHA-256 of each file that decides what a run does, by its path below the root."""
    found = {}
    for name in CODE:
        top = root / name
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            # Hidden files are editors'.
            if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith("."):
                found[str(file.relative_to(root))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _differing(before: dict[str, str], now: dict[str, str]) -> list[str]:
    changed = [f"{file} (changed)" for file in before.keys() & now.keys() if before[file] != now[file]]
    gone = [f"{file} (gone)" for file in before.keys() - now.keys()]
    new = [f"{file} (new)" for file in now.keys() - before.keys()]
    return sorted([*changed, *gone, *new])


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f", and {more} more" if more > 0 else "")
