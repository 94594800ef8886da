"""Reading what the programs themselves recorded: the kube-apiserver's audit log, the gateway's access log.

Both are read from their beginning, by somebody who wants few of their lines: a line is decoded only if it holds
the text it would have to hold. A last line that is still being written has no end yet, and is left alone.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["Write", "read_records", "read_writes", "write_of"]


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
    audit_id: str = ""


def read_writes(log: Path, namespace: str, audit_ids: Collection[str] = ()) -> Iterator[Write]:
    """The writes that succeeded, in the log's order: to one namespace, and those with one of the audit ids.

    Reviews are of no namespace: their ids are the only way to find them.
    """
    for event in _lines_with(log, f'"namespace":"{namespace}"', *(f'"auditID":"{each}"' for each in audit_ids)):
        write = write_of(event)
        if write is None or write.code >= 300:
            continue
        if write.namespace == namespace or write.audit_id in audit_ids:
            yield write


def read_records(log: Path, request_id: str) -> list[dict[str, Any]]:
    """The gateway's access records of one request. More than one if a caller sent the same id again."""
    return [record for record in _lines_with(log, f'"{request_id}"') if record["request_id"] == request_id]


def _lines_with(log: Path, *texts: str) -> Iterator[dict[str, Any]]:
    wanted = [text.encode() for text in texts]
    with log.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n") and any(text in line for text in wanted):
                yield json.loads(line)


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
        audit_id=event.get("auditID", ""),
    )
