"""What the kube-apiserver noted of the requests a matrix was made of: the proof from outside.

Only what is written from a moment on is read, and of it only what bears the name of one of the tenants' users. That a
request left no trace can be said once a later one of our own is there.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import orjson

from virtflow.access.matrix import WRITES, Cell
from virtflow.kube.resources import Object
from virtflow.sequence.audit import EVENT_START
from virtflow.sequence.tail import Tail, whole_records
from workflows.access_models import AuditEvidence, Door, Outcome

__all__ = ["AuditLog", "AuditLogBehindError", "Decision", "Observed", "weigh"]

LOOK_EVERY = timedelta(milliseconds=50)
SLICE = 100
"""Lines read before others have their turn."""
DECISIONS = {"allow": True, "forbid": False}
NAMED = 20
"""Contradictions and strays that are named, of each."""


class AuditLogBehindError(Exception):
    """What must be in the log is not there in time."""


@dataclass(frozen=True)
class Decision:
    """One event: who asked for what, and what the authorizer said."""

    audit_id: str
    user: str
    """In whose name: the impersonated one, if it is one."""
    verb: str
    group: str
    resource: str
    """Plural, or `plural/subresource`."""
    namespace: str
    code: int
    allowed: bool | None
    """None if it was turned away before anybody decided: by a server that is busy, or for its token."""

    @classmethod
    def of(cls, event: Object) -> "Decision":
        ref = event.get("objectRef") or {}
        subresource = ref.get("subresource", "")
        return cls(
            event["auditID"],
            (event.get("impersonatedUser") or event["user"]).get("username", ""),
            event["verb"],
            ref.get("apiGroup", ""),
            ref.get("resource", "") + (f"/{subresource}" if subresource else ""),
            ref.get("namespace", ""),
            (event.get("responseStatus") or {}).get("code", 0),
            DECISIONS.get((event.get("annotations") or {}).get("authorization.k8s.io/decision", "")),
        )

    def is_about(self, cell: Cell) -> bool:
        asked = (self.user, self.verb, self.group, self.resource, self.namespace)
        return asked == (cell.user, cell.verb, cell.target.resource.group, str(cell.target), cell.place)


@dataclass(frozen=True)
class Observed:
    """One request that was made, by its id in the logs."""

    cell: Cell
    door: Door
    request_id: str
    outcome: Outcome

    @property
    def is_noted(self) -> bool:
        """Whether it must be in the log. What the gateway denies may be, too: let through by an outdated review."""
        return self.door is Door.KUBE_APISERVER or self.outcome is Outcome.ALLOWED


class AuditLog:
    """Follows the log from its end at the time of making, or from some bytes before. Close it after use."""

    def __init__(self, path: Path, *, back: int = 0) -> None:
        self._path = path
        self._tail = Tail.from_end(path, back=back)

    def close(self) -> None:
        self._tail.close()

    async def read_until(
        self, marker: str, words: Iterable[str], within: timedelta, ids: Iterable[str] = ()
    ) -> list[Decision]:
        """The events with one of these words, once those with the audit ids `marker` and `ids` are there.

        An event is noted a moment after its answer, so that the marker's may come before the others'. Those that do
        not come in time are missing; without the marker nothing can be said. Raises AuditLogBehindError.
        """
        wanted, end = [word.encode() for word in words], marker.encode()
        missing, found = {marker, *ids}, []
        read = 0
        try:
            async with asyncio.timeout(within.total_seconds()):
                while missing:
                    line = self._tail.next_line()
                    if line is None:
                        await asyncio.sleep(LOOK_EVERY.total_seconds())
                        continue
                    decisions = _decisions(line, wanted)
                    found += decisions
                    missing.difference_update(decision.audit_id for decision in decisions)
                    if end in line:
                        missing.discard(marker)
                    read += 1
                    if read % SLICE == 0:
                        await asyncio.sleep(0)
        except TimeoutError:
            if marker in missing:
                raise AuditLogBehindError(
                    f"{self._path}: a request of our own is not in this log {within.total_seconds():.0f} s after "
                    "its answer, so nothing can be said of what was asked before it. Does this cluster's audit "
                    "policy log writes, and is this its kube-apiserver's log?"
                ) from None
        return found


def _decisions(line: bytes, words: list[bytes]) -> list[Decision]:
    """Of the events with one of the words: a line has one event, or more where a writer was killed in it."""

    def has_word(text: bytes) -> bool:
        return any(word in text for word in words)

    if not has_word(line):
        return []
    try:
        return [Decision.of(orjson.loads(line))]
    except orjson.JSONDecodeError:
        return [Decision.of(orjson.loads(event)) for event in whole_records(line, EVENT_START) if has_word(event)]


def weigh(observed: Iterable[Observed], decisions: Iterable[Decision], homes: Mapping[str, str]) -> AuditEvidence:
    """Hold what was observed against the log. `homes` has the namespace of each user."""
    by_id: defaultdict[str, list[Decision]] = defaultdict(list)
    strays: dict[str, None] = {}
    for decision in decisions:
        if decision.allowed is not None:
            by_id[decision.audit_id].append(decision)
        if is_stray(decision, homes):
            place = f"namespace {decision.namespace}" if decision.namespace else "the whole cluster"
            strays[f"{decision.user} could {decision.verb} {decision.resource} in {place} ({decision.code})"] = None
    contradictions = []
    agreed = never_arrived = 0
    for each in observed:
        heard = by_id.get(each.request_id, [])
        said = contradiction(each, heard)
        agreed += bool(heard) and not said
        never_arrived += not heard and not said
        if said:
            cell = each.cell
            what = f'"{cell.account}" {cell.verb} {cell.target} in {cell.place or "the whole cluster"}'
            contradictions.append(f"{what} at the {each.door} was {each.outcome}, but {said}")
    return AuditEvidence(agreed, never_arrived, contradictions[:NAMED], list(strays)[:NAMED])


def contradiction(observed: Observed, decisions: list[Decision]) -> str:
    """What the log says to the contrary; empty if it agrees."""
    if not decisions:
        # What the gateway itself refuses, it does after a review whose verdict is in no log.
        return "the audit log has no decision on it" if observed.is_noted else ""
    if observed.outcome is Outcome.NOT_OFFERED:
        return "it reached the kube-apiserver all the same"
    if not all(decision.is_about(observed.cell) for decision in decisions):
        return f"the kube-apiserver heard another request: {decisions[0]}"
    allowed = observed.outcome is Outcome.ALLOWED
    if any(decision.allowed != allowed for decision in decisions):
        return f"the kube-apiserver decided to {'deny' if allowed else 'allow'} it"
    return ""


def is_stray(decision: Decision, homes: Mapping[str, str]) -> bool:
    home = homes.get(decision.user)
    return home is not None and decision.verb in WRITES and decision.code < 300 and decision.namespace != home
