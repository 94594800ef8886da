"""One JSON line for each request: who asked for what, what was decided, and why.

`verdict` is the gateway's, `code` the answer's: a write that RBAC allows and a webhook then refuses is
"allowed" with code 422. The token is in no field.

No line is long, whatever was sent: nobody is to push the others' lines out. The log has a size: a file that is full
is renamed as lumberjack does it, which the kube-apiserver uses for its audit log, so that one reader follows both
(`virtflow/sequence/tail.py`). Not logging's RotatingFileHandler: it renames every file at each rotation, and whoever
reads one of them would take it for the next.
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from clusters.gateway.status import LONGEST

__all__ = ["AccessLog", "Record"]

FULL = 64 * 1024 * 1024
"""Bytes: some hundred thousand requests."""
KEPT = 3
TIME, ANY_TIME = "%Y-%m-%dT%H-%M-%S", "????-??-??T??-??-??.???"

Verdict = Literal["allowed", "denied", "unauthenticated", "too many", "bad request", "unavailable"]


@dataclass
class Record:
    """What is known of a request so far. Empty strings stand for what it did not get far enough to tell."""

    request_id: str
    method: str = ""
    user: str = ""
    tenant: str = ""
    namespace: str = ""
    verb: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    token_review: str = ""
    """Audit-ID of the TokenReview that says who it is: this request's own, or an earlier one's."""
    access_review: str = ""
    """Audit-ID of the SubjectAccessReview that was used, likewise."""
    code: int = 500
    allowed: bool = False
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.allowed:
            return "allowed"
        if self.code == 401:
            return "unauthenticated"
        if self.code == 403:
            return "denied"
        if self.code == 429:
            return "too many"
        return "unavailable" if self.code >= 500 else "bad request"


class AccessLog:
    """Appends to a file, a whole line in one write, so that a reader who follows it sees no half of one.

    A full one becomes NAME-<time>.log, of which the latest `kept` stay. The times sort in the order of writing, also
    when the clock was set back.
    """

    def __init__(self, path: Path, *, size: int = FULL, kept: int = KEPT) -> None:
        self._path = path
        self._size = size
        self._kept = kept
        self._open()

    def write(self, record: Record, latency: timedelta) -> None:
        fields = asdict(record)
        del fields["allowed"]
        fields["reason"] = record.reason[:LONGEST]
        content = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            **fields,
            "verdict": record.verdict,
            "latency_ms": round(latency / timedelta(milliseconds=1), 3),
        }
        line = json.dumps(content).encode() + b"\n"
        if self._written and self._written + len(line) > self._size:
            self._rotate()
        self._written += self._file.write(line)

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        self._file = self._path.open("ab", buffering=0)
        self._written = self._file.tell()

    def _rotate(self) -> None:
        self._file.close()
        # Whatever forbids it must not end the log: it goes on in the file that there is, or in a new one.
        with contextlib.suppress(OSError):
            self._rename()
        self._open()

    def _rename(self) -> None:
        rotated = sorted(self._path.parent.glob(f"{self._path.stem}-{ANY_TIME}{self._path.suffix}"))
        stamp = datetime.now(UTC)
        while rotated and self._rotated(stamp) <= rotated[-1]:
            stamp = max(stamp, self._time_of(rotated[-1])) + timedelta(milliseconds=1)
        self._path.rename(self._rotated(stamp))
        for old in rotated[: len(rotated) + 1 - self._kept]:
            old.unlink()

    def _rotated(self, stamp: datetime) -> Path:
        time = stamp.strftime(f"{TIME}.") + f"{stamp.microsecond // 1000:03}"
        return self._path.with_name(f"{self._path.stem}-{time}{self._path.suffix}")

    def _time_of(self, rotated: Path) -> datetime:
        time = rotated.name.removeprefix(f"{self._path.stem}-").removesuffix(self._path.suffix)
        return datetime.strptime(time, f"{TIME}.%f").replace(tzinfo=UTC)
