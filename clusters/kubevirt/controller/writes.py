"""Writes as data, and the one place that performs them.

A reconciler's judgement is a pure function that returns writes; here they become requests. Each answer goes
straight into the informer's copy, so that the next look at it, however soon, sees what was written: that, and
names derived from an owner's uid, is why nothing is ever created twice.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from clusters.kubevirt.controller.events import Note, Recorder
from virtflow.kube import Informer, KubeClient, KubeError, Object, Resource

__all__ = ["Create", "Delete", "Patch", "Replace", "Write", "Writer", "json_patch"]

TOGETHER = 20
"""Requests of one reconciliation under way at once; the kube-apiserver would queue more of one client anyway."""


@dataclass(frozen=True)
class Create:
    """`done` is recorded with the new object's `{name}`, `refused` with the server's `{error}`."""

    resource: Resource
    body: Object
    done: Note | None = None
    refused: Note | None = None


@dataclass(frozen=True)
class Replace:
    resource: Resource
    body: Object
    subresource: Literal["status"] | None = None


@dataclass(frozen=True)
class Patch:
    resource: Resource
    target: Object
    patch: object
    kind: Literal["json", "strategic"] = "json"
    subresource: Literal["status"] | None = None
    done: Note | None = None


@dataclass(frozen=True)
class Delete:
    """Of this very object, not of another one by its name."""

    resource: Resource
    target: Object
    done: Note | None = None


Write = Create | Replace | Patch | Delete


def json_patch(path: str, old: object, new: object) -> list[Object]:
    """Change one value, provided nobody else has changed it meanwhile; None where there was, or is to be, nothing."""
    change: Object = {"op": "remove", "path": path} if new is None else {"op": "replace", "path": path, "value": new}
    return [{"op": "test", "path": path, "value": old}, change]


class Writer:
    """Performs writes as one identity."""

    def __init__(self, kube: KubeClient, informers: Mapping[Resource, Informer], recorder: Recorder) -> None:
        self._kube = kube
        self._informers = informers
        self._recorder = recorder

    async def perform(self, writes: Iterable[Write]) -> None:
        """One after the other; the first refusal ends it. Raises what `KubeClient.request` raises."""
        for write in writes:
            await self._perform(write)

    async def perform_together(self, writes: Iterable[Write]) -> None:
        """At the same time; all are tried, then the first refusal is raised."""
        limit = asyncio.Semaphore(TOGETHER)

        async def one(write: Write) -> None:
            async with limit:
                await self._perform(write)

        outcomes = await asyncio.gather(*map(one, writes), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _perform(self, write: Write) -> None:
        match write:
            case Create():
                await self._create(write)
            case Replace(resource, body, subresource):
                self._observe(resource, await self._kube.replace(resource, body, subresource=subresource))
            case Patch(resource, target, patch, kind, subresource, done):
                name, namespace = target["metadata"]["name"], target["metadata"].get("namespace")
                answer = await self._kube.patch(resource, name, patch, namespace, kind=kind, subresource=subresource)
                self._observe(resource, answer)
                if done:
                    self._recorder.record(done)
            case Delete():
                await self._delete(write)

    async def _create(self, write: Create) -> None:
        try:
            answer = await self._kube.create(write.resource, write.body, write.body["metadata"]["namespace"])
        except KubeError as error:
            if write.refused and error.code != 409:
                self._recorder.record(write.refused, error=error.message)
            raise
        self._observe(write.resource, answer)
        if write.done:
            self._recorder.record(write.done, name=answer["metadata"]["name"])

    async def _delete(self, write: Delete) -> None:
        meta = write.target["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": meta["uid"]},
        }
        path = write.resource.path(meta["namespace"], meta["name"])
        try:
            answer = await self._kube.request("DELETE", path, body=options)
        except KubeError as error:
            if error.code != 404:
                raise
            return
        # What is gone at once is answered with a Status; what lingers, with itself.
        if answer.get("kind") == write.resource.kind:
            self._observe(write.resource, answer)
        if write.done:
            self._recorder.record(write.done, name=meta["name"])

    def _observe(self, resource: Resource, answer: Object) -> None:
        if informer := self._informers.get(resource):
            informer.observe(answer)
