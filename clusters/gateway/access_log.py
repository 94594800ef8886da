"""One JSON line for each request: who asked for what, what was decided, and why.

`verdict` is the gateway's, `code` the answer's: a write that RBAC allows and a webhook then refuses is
"allowed" with code 422. The token is in no field.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

__all__ = ["AccessLog", "Record"]

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
    """Appends to a file, a whole line in one write, so that a reader who follows it sees no half of one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, record: Record, latency: timedelta) -> None:
        fields = asdict(record)
        del fields["allowed"]
        line = {
            "time": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            **fields,
            "verdict": record.verdict,
            "latency_ms": round(latency / timedelta(milliseconds=1), 3),
        }
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        self._file.close()
