"""What the audit log proves: who wrote what with success. Read by itself, not by the project's own reader."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Written", "succeeded", "unanswered"]

CONTROLLER = "system:serviceaccount:kubevirt:kubevirt-controller"


@dataclass(frozen=True)
class Written:
    """One write of virt-controller's."""

    verb: str
    resource: str
    name: str
    answer: dict[str, Any]
    """The object as it was answered; a Status where a delete took effect at once."""
    request: Any

    @property
    def uid(self) -> str:
        return str(self.answer["metadata"]["uid"])

    @property
    def owner(self) -> str:
        """The uid of the object's only owner."""
        (owner,) = self.answer["metadata"]["ownerReferences"]
        return str(owner["uid"])

    @property
    def paths(self) -> set[str]:
        """Of a JSON patch."""
        return {operation["path"] for operation in self.request} if isinstance(self.request, list) else set()


def succeeded(audit_log: Path, namespace: str) -> Iterator[Written]:
    """virt-controller's in a namespace, without those to subresources, in the order of their answers."""
    for event in _writes(audit_log, namespace):
        if event["responseStatus"]["code"] < 300:
            ref, answer = event["objectRef"], event.get("responseObject", {})
            name = ref.get("name") or answer.get("metadata", {}).get("name", "")
            yield Written(event["verb"], ref["resource"], name, answer, event.get("requestObject"))


def unanswered(audit_log: Path, namespace: str, resource: str) -> int:
    """How many of its creates its death cut short: the object may be stored all the same, or not."""
    return sum(
        (event["verb"], event["objectRef"]["resource"]) == ("create", resource)
        and event["responseStatus"]["code"] == 504
        for event in _writes(audit_log, namespace)
    )


def _writes(audit_log: Path, namespace: str) -> Iterator[dict[str, Any]]:
    with audit_log.open(encoding="utf-8") as lines:
        for line in lines:
            if f'"namespace":"{namespace}"' not in line:
                continue
            event = json.loads(line)
            ref = event["objectRef"]
            if event["user"]["username"] == CONTROLLER and ref["namespace"] == namespace and "subresource" not in ref:
                yield event
