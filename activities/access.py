"""Tries what tenants may and may not do, as they would: with their own tokens, at both doors."""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import timedelta

from temporalio import activity

from activities.doors import AUDIENCES, Doors
from activities.errors import gave_up, refusals_are_final
from activities.heartbeat import heartbeating
from activities.tokens import Tokens
from clusters.endpoints import Endpoints
from virtflow.access.audit import AuditLog, AuditLogBehind, Decision, Observed
from virtflow.access.judgement import judge
from virtflow.access.matrix import Cell, cells, expected, find_target
from virtflow.access.requests import request_at
from virtflow.access.tables import Answer, tabulate
from virtflow.kube import KubeClient, Object
from virtflow.kube.resources import SUBJECT_ACCESS_REVIEWS
from workflows.access_models import AccessMatrix, AccessOrder, Door, DoorAnswer, DoorRequest, Outcome
from workflows.tenant_models import Tenant

__all__ = ["Access"]

AT_ONCE = 8
"""Requests: enough to keep a small control plane busy, and few enough for it to answer each at once."""
ROLE_LIMIT = timedelta(seconds=20)
LOOK_EVERY = timedelta(milliseconds=50)
AUDIT_LIMIT = timedelta(seconds=20)


class Access:
    """Repeated, it makes the same requests under the same ids, and changes nothing either time."""

    def __init__(self, kube: KubeClient, doors: Doors, tokens: Tokens, endpoints: Endpoints) -> None:
        self._kube = kube
        self._doors = doors
        self._tokens = tokens
        self._audit_log = endpoints.audit_log

    @activity.defn
    async def try_everything(self, order: AccessOrder) -> AccessMatrix:
        """Try each request of each actor at both doors, and read in the audit log what was decided."""
        prefix = _derived("")
        async with heartbeating():
            for actor in order.actors:
                await self._until_role_holds(actor, order.tenants)
            with closing(AuditLog(self._audit_log)) as log:
                answers = await self._try_each(_tries(order, prefix))
                decisions = await self._read_decisions(log, f"{prefix}-end", answers)
        return tabulate(order, answers, decisions)

    @activity.defn
    async def request(self, request: DoorRequest) -> DoorAnswer:
        """One request, and the refusal's words if it is one."""
        cell = Cell(request.tenant, find_target(request.resource), request.verb, request.place)
        token = await self._tokens.of(request.tenant, AUDIENCES[request.token_for or request.door])
        request_id = _derived(request.door)
        http = request_at(request.door, cell, *([request.name] if request.name else []))
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
        token = await self._tokens.of(cell.actor, AUDIENCES[door])
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
                while not await self._is_allowed(cell):
                    await asyncio.sleep(LOOK_EVERY.total_seconds())
        except TimeoutError:
            raise gave_up(
                f'Tenant "{actor.name}" may {cell.verb} {cell.target} by its role, and the cluster still denies it '
                f"{ROLE_LIMIT.total_seconds():.0f} s after the role was made: is its RoleBinding there?"
            ) from None

    async def _is_allowed(self, cell: Cell, audit_id: str = "") -> bool:
        resource = cell.target.resource
        attributes = {
            "namespace": cell.place,
            "verb": cell.verb,
            "group": resource.group,
            "resource": resource.plural,
            "subresource": cell.target.subresource,
        }
        body: Object = {
            "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version,
            "kind": SUBJECT_ACCESS_REVIEWS.kind,
            "spec": {"user": cell.user, "resourceAttributes": attributes},
        }
        with refusals_are_final():
            answer = await self._kube.request(
                "POST",
                SUBJECT_ACCESS_REVIEWS.path(),
                body=body,
                headers={"Audit-ID": audit_id} if audit_id else {},
            )
        return bool(answer["status"]["allowed"])

    async def _read_decisions(self, log: AuditLog, marker: str, answers: list[Answer]) -> list[Decision]:
        """All that is in the log of what these users asked before now."""
        users = {answer.observed.cell.user for answer in answers}
        await self._is_allowed(answers[0].observed.cell, marker)
        try:
            return await log.read_until(marker, users, AUDIT_LIMIT)
        except AuditLogBehind as error:
            raise gave_up(str(error)) from None


def _tries(order: AccessOrder, prefix: str) -> Iterator[tuple[str, Cell, Door]]:
    everything = (cell for actor in order.actors for cell in cells(actor, order.tenants))
    for number, cell in enumerate(everything):
        for door in Door:
            yield f"{prefix}-{number:05}-{door[0]}", cell, door


def _derived(what: str) -> str:
    """An id that is the same in every try of this activity: the logs have each request once or more, and all alike."""
    info = activity.info()
    return hashlib.sha256(f"{info.workflow_run_id} {info.activity_id} {what}".encode()).hexdigest()[:24]
