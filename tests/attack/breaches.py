"""What the audit log says that the gateway let happen: the proof, which asks no answer of the gateway's.

An event is looked at as the kube-apiserver wrote it. It knows the gateway by its certificate or token, and whom the
gateway impersonated; the id that an event carries leads back to the request that the attacker sent.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Account", "breach", "events_since"]

Event = Mapping[str, Any]

GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"
REVIEWS = {"tokenreviews", "subjectaccessreviews"}
WRITES = {"create", "update", "patch", "delete", "deletecollection"}


@dataclass(frozen=True)
class Account:
    """A service account that sends requests, and must stay within its namespace."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.namespace}:{self.name}"

    @property
    def groups(self) -> set[str]:
        return {"system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"}


def events_since(audit_log: Path, offset: int) -> Iterator[Event]:
    """Whole events from a position in the file on."""
    with audit_log.open("rb") as lines:
        lines.seek(offset)
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)


def breach(event: Event, senders: Mapping[str, Account], attacker: Account) -> str | None:
    """What this event should never have been; None if it is in order.

    `senders` has, for each request id, the account whose token it was sent with. Requests whose id is not known
    (nobody waited for the answer) are the attacker's.
    """
    who = event["user"]["username"]
    impersonated = event.get("impersonatedUser")
    if who == GATEWAY:
        if impersonated is None:
            return None if _is_its_own(event) else _told(event, "the gateway did this in its own name")
        sender = senders.get(event["auditID"], attacker)
        if impersonated.get("username") != sender.user:
            return _told(event, f"it was sent with the token of {sender.user}")
        if set(impersonated.get("groups", [])) != sender.groups or impersonated.keys() - {"username", "groups"}:
            return _told(event, "the account was given more than its own groups")
        return _outside(event, sender)
    if who == attacker.user or (impersonated or {}).get("username") == attacker.user:
        return _outside(event, attacker)
    return None


def _is_its_own(event: Event) -> bool:
    ref = event.get("objectRef", {})
    if event["verb"] == "create" and ref.get("resource") in REVIEWS and "namespace" not in ref:
        return True
    return not ref and event["verb"] == "get" and event["requestURI"] in ("/readyz", "/livez")


def _outside(event: Event, account: Account) -> str | None:
    if event["responseStatus"].get("code", 0) >= 300:
        return None
    namespace = event.get("objectRef", {}).get("namespace", "")
    answered = event.get("responseObject", {}).get("metadata", {}).get("namespace", namespace)
    if {namespace, answered} == {account.namespace}:
        return None
    done = "wrote" if event["verb"] in WRITES else "read"
    return _told(event, f"{account.user} {done} outside its namespace")


def _told(event: Event, what: str) -> str:
    impersonated = (event.get("impersonatedUser") or {}).get("username", "nobody")
    return (
        f"{event['auditID']}: {event['user']['username']} as {impersonated}: {event['verb']} "
        f"{event['requestURI']} ({event['responseStatus'].get('code')}): {what}"
    )
