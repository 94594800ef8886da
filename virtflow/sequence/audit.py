"""Reading the kube-apiserver's audit log."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["Write", "read_writes", "write_of"]


@dataclass(frozen=True)
class Write:
    """One write that the kube-apiserver answered."""

    at: datetime
    """When the request arrived, by the server's clock (microseconds)."""
    user: str
    impersonated: str | None
    agent: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    answer: dict[str, Any] = field(hash=False, default_factory=dict)
    """The object that resulted, where the audit policy keeps it."""
    annotations: dict[str, str] = field(hash=False, default_factory=dict)


def read_writes(log: Path, namespace: str) -> Iterator[Write]:
    """The writes to one namespace that succeeded, in the log's order."""
    wanted = f'"namespace":"{namespace}"'.encode()
    with log.open("rb") as lines:
        for line in lines:
            # Most lines are of others: decoding them all would take most of the time. A last line that is
            # still being written has no end yet.
            if wanted in line and line.endswith(b"\n"):
                write = write_of(json.loads(line))
                if write is not None and write.namespace == namespace and write.code < 300:
                    yield write


def write_of(event: dict[str, Any]) -> Write | None:
    """An audit event (audit.k8s.io/v1) as a write; None for a read or for one that was not answered yet."""
    if event.get("stage") != "ResponseComplete" or event["verb"] in ("get", "list", "watch"):
        return None
    ref, answer = event.get("objectRef", {}), event.get("responseObject") or {}
    return Write(
        at=datetime.fromisoformat(event["requestReceivedTimestamp"]),
        user=event["user"].get("username", ""),
        impersonated=event.get("impersonatedUser", {}).get("username"),
        agent=event.get("userAgent", ""),
        verb=event["verb"],
        resource=ref.get("resource", ""),
        subresource=ref.get("subresource", ""),
        namespace=ref.get("namespace", ""),
        # A create with generateName has its name in the answer only.
        name=ref.get("name") or answer.get("metadata", {}).get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        answer=answer,
        annotations=event.get("annotations") or {},
    )
