"""Tries what tenants may and may not do, as they would: with their own tokens, at both doors."""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import orjson
from temporalio import activity

from activities.doors import AUDIENCES, Doors
from activities.errors import gave_up, refusals_are_final
from activities.heartbeat import heartbeating
from activities.tokens import Tokens
from clusters.endpoints import Endpoints
from virtflow.access.audit import AuditLog, AuditLogBehindError, Decision, Observed
from virtflow.access.judgement import judge
from virtflow.access.matrix import Cell, cells, expected, find_target, homes
from virtflow.access.requests import request_at
from virtflow.access.tables import Answer, tabulate
from virtflow.kube import KubeClient, Object
from virtflow.kube.resources import SECRETS, SUBJECT_ACCESS_REVIEWS
from virtflow.sequence.audit import ACCESS_RECORD_START
from virtflow.sequence.tail import Tail, whole_records
from workflows.access_models import (
    AccessMatrix,
    AccessOrder,
    Door,
    DoorAnswer,
    DoorRequest,
    LoggedReason,
    Outcome,
    SecretOrder,
)
from workflows.tenant_models import Tenant

__all__ = ["Access", "find_record"]

AT_ONCE = 8
"""Requests: enough to keep a small control plane busy, and few enough for it to answer each at once."""
ROLE_LIMIT = timedelta(seconds=20)
LOOK_EVERY = timedelta(milliseconds=50)
LOG_LIMIT = timedelta(seconds=20)
LOOK_BACK = 32 * 1024 * 1024
"""Bytes of a log in which a request of a moment ago is looked for."""


class Access:
    """Repeated, it makes the same requests under the same ids, which change nothing; only a secret is drawn anew."""

    def __init__(self, kube: KubeClient, doors: Doors, tokens: Tokens, endpoints: Endpoints) -> None:
        self._kube = kube
        self._doors = doors
        self._tokens = tokens
        self._audit_log = endpoints.audit_log
        self._access_log = endpoints.access_log

    @activity.defn
    async def try_everything(self, order: AccessOrder) -> AccessMatrix:
        """Try each request of each actor at both doors, and read in the audit log what was decided."""
        prefix = _derived("")
        async with heartbeating():
            for actor in order.actors:
                await self._until_role_holds(actor, order.tenants)
            with closing(AuditLog(self._audit_log)) as log:
                answers = await self._try_each(_tries(order, prefix))
                await self._mark(marker := f"{prefix}-end")
                observed = [answer.observed for answer in answers]
                noted = [each.request_id for each in observed if each.is_noted]
                decisions = await self._read_until(log, marker, homes(order.tenants), noted)
        return tabulate(order, answers, decisions)

    @activity.defn
    async def create_secret(self, order: SecretOrder) -> None:
        """A secret with something in it that is worth being kept."""
        content = {"password": secrets.token_urlsafe(16)}
        body = {"metadata": {"name": order.name, "labels": order.labels}, "stringData": content}
        with refusals_are_final():
            await self._kube.apply(SECRETS, body, order.namespace)

    @activity.defn
    async def read_logs(self, request_id: str) -> LoggedReason:
        """What an operator finds of a request to the gateway that was made a moment ago."""
        async with heartbeating():
            record = await self._access_record(request_id)
            with closing(AuditLog(self._audit_log, back=LOOK_BACK)) as log:
                await self._mark(marker := _derived(request_id))
                events = await self._read_until(log, marker, [request_id])
        forwarded = sum(event.audit_id == request_id for event in events)
        heard = [f"{event.user} {event.verb} {event.resource}" for event in events]
        return LoggedReason(record["verdict"], record["reason"], forwarded, heard)

    @activity.defn
    async def request_at_door(self, request: DoorRequest) -> DoorAnswer:
        """One request, and the refusal's words if it is one."""
        cell = Cell(request.tenant, request.tenant.user, find_target(request.resource), request.verb, request.place)
        token = await self._tokens.of(request.tenant, AUDIENCES[request.token_for or request.door])
        request_id = _derived(request.door)
        http = request_at(request.door, cell, *([request.name] if request.name else []))
        async with heartbeating():
            reply = await self._doors.ask(request.door, http, token, request_id)
        return DoorAnswer(reply.code, reply.reason, reply.message, request_id)

    async def _try_each(self, tries: Iterable[tuple[str, Cell, Door]]) -> list[Answer]:
        """In the order of the tries."""
        waiting = iter(tries)
        answers: dict[str, Answer] = {}

        async def work() -> None:
            for request_id, cell, door in waiting:
                answers[request_id] = await self._try(request_id, cell, door)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
        # Ids count up.
        return [answers[request_id] for request_id in sorted(answers)]

    async def _try(self, request_id: str, cell: Cell, door: Door) -> Answer:
        token = await self._tokens.of(cell.actor, AUDIENCES[door], user=cell.account)
        reply = await self._doors.ask(door, request_at(door, cell), token, request_id)
        outcome = judge(cell, door, reply.code, reply.status)
        return Answer(Observed(cell, door, request_id, outcome), reply.code, reply.message)

    async def _until_role_holds(self, actor: Tenant, tenants: list[Tenant]) -> None:
        """The kube-apiserver's authorizer hears of new bindings a moment after they are stored."""
        of_role = [cell for cell in cells(actor, tenants) if expected(cell, Door.KUBE_APISERVER) is Outcome.ALLOWED]
        if not of_role:
            return
        cell = of_role[-1]
        try:
            async with asyncio.timeout(ROLE_LIMIT.total_seconds()):
                while not await self._is_allowed(cell):  # noqa: ASYNC110 - it is another process that has to hear
                    await asyncio.sleep(LOOK_EVERY.total_seconds())
        except TimeoutError:
            raise gave_up(
                f'Tenant "{actor.name}" may {cell.verb} {cell.target} by its role, and the cluster still denies it '
                f"{ROLE_LIMIT.total_seconds():.0f} s after the role was made: is its RoleBinding there?"
            ) from None

    async def _is_allowed(self, cell: Cell) -> bool:
        attributes = {
            "namespace": cell.place,
            "verb": cell.verb,
            "group": cell.target.resource.group,
            "resource": cell.target.resource.plural,
            "subresource": cell.target.subresource,
        }
        answer = await self._review({"user": cell.user, "resourceAttributes": attributes})
        return bool(answer["status"]["allowed"])

    async def _mark(self, audit_id: str) -> None:
        """Make a request that is in the audit log under this id: what is there before it, was asked before it."""
        attributes = {"path": "/", "verb": "get"}
        await self._review({"user": "nobody", "nonResourceAttributes": attributes}, {"Audit-ID": audit_id})

    async def _review(self, spec: Object, headers: Mapping[str, str] | None = None) -> Object:
        review = SUBJECT_ACCESS_REVIEWS
        body = {"apiVersion": review.api_version, "kind": review.kind, "spec": spec}
        with refusals_are_final():
            return await self._kube.request("POST", review.path(), body=body, headers=headers)

    async def _read_until(
        self, log: AuditLog, marker: str, words: Iterable[str], ids: Iterable[str] = ()
    ) -> list[Decision]:
        try:
            return await log.read_until(marker, words, LOG_LIMIT, ids)
        except AuditLogBehindError as error:
            raise gave_up(str(error)) from None

    async def _access_record(self, request_id: str) -> Object:
        """The gateway writes it when the request is over, which its caller may know before."""
        try:
            async with asyncio.timeout(LOG_LIMIT.total_seconds()):
                while True:
                    record = await asyncio.to_thread(find_record, self._access_log, request_id)
                    if record is not None:
                        return record
                    await asyncio.sleep(LOOK_EVERY.total_seconds())
        except TimeoutError:
            raise gave_up(f"Request {request_id} is not in the gateway's access log {self._access_log}.") from None


def find_record(log: Path, request_id: str) -> Object | None:
    with closing(Tail.from_end(log, back=LOOK_BACK)) as lines:
        for line in iter(lines.next_line, None):
            if request_id.encode() in line:
                for text in whole_records(line, ACCESS_RECORD_START):
                    record: Object = orjson.loads(text)
                    if record["request_id"] == request_id:
                        return record
    return None


def _tries(order: AccessOrder, prefix: str) -> Iterator[tuple[str, Cell, Door]]:
    everything = (cell for actor in order.actors for cell in cells(actor, order.tenants))
    for number, cell in enumerate(everything):
        for door in Door:
            yield f"{prefix}-{number:05}-{door[0]}", cell, door


def _derived(what: str) -> str:
    """The same in every try of this activity: what is in the logs more than once is the same request."""
    info = activity.info()
    return hashlib.sha256(f"{info.workflow_run_id} {info.activity_id} {what}".encode()).hexdigest()[:24]
