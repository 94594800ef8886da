"""The situations played on a cluster, each chain in a namespace of its own, all at once.

Nothing is assumed of the cluster but that it has KubeVirt: objects are watched by the ordinary API, and the audit
log, where there is one, is read when all is over.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from clusters.endpoints import ClusterError
from tests.conformance.causes import too_early
from tests.conformance.compare import Account, compare
from tests.conformance.course import LIFE, Memory, Step, counted, course_of, steps_of
from tests.conformance.names import Names
from tests.conformance.picture import event_told, picture_of, rows_of
from tests.conformance.records import AGENT, Record, by_user_writes, record_of_change, record_of_event
from tests.conformance.situations import Situation
from virtflow.kube import Informer, KubeClient, KubeError, Object, Resource
from virtflow.kube.resources import (
    CONTROLLER_REVISIONS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    VMIRS,
    VMIS,
    VMS,
)
from virtflow.sequence.tail import Tail

__all__ = ["Played", "play"]

PICTURED = (VMIRS, VMS, VMIS, PODS)
QUIET = timedelta(milliseconds=500)
"""A situation has settled when it looks as recorded and for so long nothing has changed."""
GIVEN_UP = timedelta(seconds=10)
"""It has settled, otherwise than recorded, when nothing has changed for so long; unless the garbage collector has a
part in it, which may learn of KubeVirt's kinds half a minute after they were installed."""
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@dataclass(frozen=True)
class Played:
    """What was observed of one situation."""

    situation: Situation
    watched: Account
    """With the course as far as watches show it."""
    audited: Account | None
    """None without an audit log."""
    failure: str = ""
    """Why it could not be played at all."""


async def play(
    chains: list[list[Situation]], kubeconfig: Path, audit_log: Path | None, patience: timedelta
) -> list[Played]:
    """Play all; `patience` bounds the time a situation takes to settle."""
    async with await KubeClient.connect(kubeconfig, agent=AGENT) as kube:
        nodes = [node["metadata"]["name"] for node in await kube.list(NODES)]
        log = Tail(audit_log) if audit_log else None
        skip(log)
        stages = [Stage(kube, nodes) for _ in chains]
        try:
            async with asyncio.TaskGroup() as group:
                for stage, chain in zip(stages, chains, strict=True):
                    group.create_task(stage.play(chain, patience))
            lines = list(read(log, [stage.namespace for stage in stages])) if log else None
            return [played for stage in stages for played in stage.accounts(lines)]
        finally:
            if log:
                log.close()
            for stage in stages:
                await kube.delete(NAMESPACES, stage.namespace)


def skip(log: Tail | None) -> None:
    while log and log.next_line() is not None:
        pass


def read(log: Tail, namespaces: list[str]) -> Iterator[tuple[str, Record]]:
    """What was recorded since, of these namespaces."""
    marks = {namespace: f'"namespace":"{namespace}"'.encode() for namespace in namespaces}
    while line := log.next_line():
        for namespace, mark in marks.items():
            if mark in line and (record := record_of_event(line)):
                yield namespace, record


@dataclass
class Scene:
    """One situation as it was seen, by watches."""

    situation: Situation
    changes: list[Record]
    objects: list[Object]
    events: list[str]
    columns: dict[str, list[str]]


class Stage:
    """A namespace and all that happens in it."""

    def __init__(self, kube: KubeClient, nodes: list[str]) -> None:
        self.namespace = f"conformance-{uuid.uuid4().hex[:8]}"
        self._kube = kube
        self._names = Names(self.namespace, nodes)
        self._informers = {
            each: Informer(kube, each, namespace=self.namespace) for each in (*PICTURED, CONTROLLER_REVISIONS, EVENTS)
        }
        self._changes: list[Record] = []
        self._changed = asyncio.Event()
        self._scenes: list[Scene] = []
        self._unplayed: list[tuple[Situation, str]] = []
        for informer in self._informers.values():
            informer.listen(self._note)

    def _note(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new["kind"] != EVENTS.kind:
            self._names.learn_object(new)
            self._changes.append(record_of_change(time.monotonic(), old, new))
        self._changed.set()

    async def play(self, chain: list[Situation], patience: timedelta) -> None:
        await self._kube.create(NAMESPACES, {"metadata": {"name": self.namespace}})
        async with contextlib.AsyncExitStack() as stack:
            await self._await_account()
            for informer in self._informers.values():
                await stack.enter_async_context(informer.running())
            for index, situation in enumerate(chain):
                try:
                    await self._play_one(situation, patience)
                except (KubeError, LookupError) as error:
                    self._unplayed = [(each, f"it could not be played: {error}") for each in chain[index:]]
                    return

    async def _await_account(self) -> None:
        """Pods made before the namespace has its default account are refused."""
        accounts = Informer(self._kube, SERVICE_ACCOUNTS, namespace=self.namespace)
        async with accounts.running(), asyncio.timeout(30):
            await accounts.wait_for(self.namespace, "default", lambda account: account is not None)

    async def _play_one(self, situation: Situation, patience: timedelta) -> None:
        for manifest in situation.before:
            await self._kube.create(resource_of(manifest), manifest, self.namespace)
        self._changes = []
        heard = {versioned(event) for event in self._informers[EVENTS].items()}
        await self._act(situation.action)
        await self._settle(situation, heard, patience)
        columns = {each.plural: rows for each in PICTURED if (rows := await self._rows(each))}
        self._scenes.append(Scene(situation, self._changes, self._objects(), self._events(heard), columns))

    async def _act(self, action: Object) -> None:
        """One write, which marks the situation's beginning in the audit log."""
        if manifest := action.get("create"):
            await self._kube.create(resource_of(manifest), manifest, self.namespace)
            return
        resource, name = self._find(action.get("patch") or action["delete"])
        if "delete" in action:
            await self._kube.delete(resource, name, self.namespace)
        else:
            subresource = action.get("subresource")
            await self._kube.patch(resource, name, action["with"], self.namespace, subresource=subresource)

    def _find(self, alias: str) -> tuple[Resource, str]:
        for resource in PICTURED:
            for obj in self._informers[resource].items():
                if self._alias(obj) == alias:
                    return resource, obj["metadata"]["name"]
        raise LookupError(f"there is no {alias}")

    async def _settle(self, situation: Situation, heard: set[tuple[str, str]], patience: timedelta) -> None:
        given_up = patience if "garbage-collector" in str(situation.account["course"]) else GIVEN_UP
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                while await self._changes_within(QUIET if self._looks_as(situation, heard) else given_up):
                    pass

    async def _changes_within(self, span: timedelta) -> bool:
        self._changed.clear()
        try:
            async with asyncio.timeout(span.total_seconds()):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _looks_as(self, situation: Situation, heard: set[tuple[str, str]]) -> bool:
        course = situation.account["course"]
        deleted = {each["object"] for each in course if str(each.get(LIFE, "")).endswith("deletes']")}
        revisions = self._informers[CONTROLLER_REVISIONS].items()
        recorded = {**situation.account, "course": [], "columns": {}}
        there = {"course": [], "objects": self._objects(), "events": self._events(heard), "columns": {}}
        return not compare(recorded, there) and deleted.isdisjoint(map(self._alias, revisions))

    def _alias(self, obj: Object) -> str:
        return self._names.alias(obj["kind"], obj["metadata"]["name"])

    def _objects(self) -> list[Object]:
        return counted(picture_of(obj, self._names) for each in PICTURED for obj in self._informers[each].items())

    def _events(self, heard: set[tuple[str, str]]) -> list[str]:
        new = (event for event in self._informers[EVENTS].items() if versioned(event) not in heard)
        # A kubelet tells of each container; the recordings' nodes were played by kwok.
        of_interest = (event for event in new if event.get("source", {}).get("component") != "kubelet")
        return sorted({event_told(event, self._names) for event in of_interest})

    async def _rows(self, resource: Resource) -> list[str]:
        table = await self._kube.request("GET", resource.path(self.namespace), headers={"Accept": TABLE})
        return rows_of(table, self._names)

    def accounts(self, audited: list[tuple[str, Record]] | None) -> Iterator[Played]:
        """Of all situations, with those of the audit log's records that are of this namespace.

        Raises ClusterError if that log cannot be this cluster's.
        """
        watching, auditing = Memory(self._names), Memory(self._names)
        parts = by_user_writes(record for namespace, record in audited or () if namespace == self.namespace)
        if audited is not None and len(parts) < len(self._scenes):
            raise ClusterError(
                f"The audit log has {len(parts)} of the {len(self._scenes)} writes that this run made in "
                f"{self.namespace}. It must be that of the only kube-apiserver, written without delay, with "
                "the writes to kubevirt.io, pods and controllerrevisions."
            )
        for index, scene in enumerate(self._scenes):
            watched = self._account(scene, steps_of(scene.changes, watching))
            if audited is None:
                yield Played(scene.situation, watched, None)
                continue
            steps = steps_of(parts[index], auditing)
            disorder = [told(step, cause) for step, cause in too_early(steps)]
            yield Played(scene.situation, watched, {**self._account(scene, steps), "disorder": disorder})
        for situation, failure in self._unplayed:
            yield Played(situation, {}, None, failure)

    def _account(self, scene: Scene, steps: list[Step]) -> Account:
        return {
            "course": course_of(steps, self._names),
            "objects": scene.objects,
            "events": scene.events,
            "columns": scene.columns,
        }


def told(step: Step, cause: Step) -> str:
    def words(each: Step) -> str:
        return f"{each.actor!r} {each.aspect} {each.value!r} of {each.kind} {each.name}"

    return f"{words(step)} came before its cause, {words(cause)}"


def resource_of(manifest: Object) -> Resource:
    group, _, version = manifest["apiVersion"].rpartition("/")
    return Resource(group, version, f"{manifest['kind'].lower()}s", manifest["kind"])


def versioned(event: Object) -> tuple[str, str]:
    return event["metadata"]["uid"], event["metadata"]["resourceVersion"]
