"""Writes as data, and the one place that performs them.

A reconciler's judgement is a pure function that returns writes; here they become requests. Each answer goes
straight into the informer's copy, so that the next look at it, however soon, sees what was written: that, and
names derived from an owner's uid, is why nothing is ever created twice.

Where a name is to be drawn, it is drawn here and not by the kube-apiserver, of the same letters, and what comes
of it looks the same. For then a create whose answer got lost can be sent again under the same name, and either
takes effect now or is told that it already has. A process that is killed before its answer takes its names with
it; but by the time its successor lists what there is, the kube-apiserver has done what it was asked or dropped
it together with the connection.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from clusters.kubevirt.controller.events import Note, Recorder
from clusters.kubevirt.controller.workqueue import is_lost_race
from clusters.kubevirt.objects import DRAWN, controller_of, drawn_name
from virtflow.kube import NO_ANSWER, Informer, KubeClient, KubeError, Object, Resource, describe

__all__ = ["Create", "Delete", "Patch", "Replace", "Write", "Writer"]

log = logging.getLogger(__name__)

DRAWS = 3
"""How many names are tried, should one be taken."""

FIRST_DELAY, LAST_DELAY = timedelta(milliseconds=100), timedelta(seconds=5)
MOST_FAILURES = 3
"""How often a create is sent again that was answered with a 5xx. Such a one may have been done: a 504 says no more
than that it took too long. It may also be what a webhook that is down always leads to, which is to be told."""
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
    done: Note | None = None


@dataclass(frozen=True)
class Patch:
    """A JSON patch is of this very object, not of another one by its name."""

    resource: Resource
    target: Object
    patch: object
    kind: Literal["json", "strategic"] = "json"
    subresource: Literal["status"] | None = None
    done: Note | None = None


@dataclass(frozen=True)
class Delete:
    """Of this very object, not of another one by its name. `refused` is recorded with the server's `{error}`."""

    resource: Resource
    target: Object
    done: Note | None = None
    refused: Note | None = None


Write = Create | Replace | Patch | Delete


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

    async def perform_together(self, writes: Sequence[Write]) -> None:
        """At the same time, if all goes well; raises the first refusal.

        As long as nothing is known to be welcome, only few are tried: one, then two, then four, and so on. What has
        been refused once, by a quota say, would mostly be refused to all the others as well; so nothing follows those
        that were tried together with it. A lost race says nothing about the others.
        """
        limit = asyncio.Semaphore(TOGETHER)
        lost: BaseException | None = None

        async def one(write: Write) -> None:
            async with limit:
                await self._perform(write)

        begin, size = 0, 1
        while begin < len(writes):
            batch = map(one, writes[begin : begin + size])
            for outcome in await asyncio.gather(*batch, return_exceptions=True):
                if isinstance(outcome, KubeError) and is_lost_race(outcome):
                    lost = lost or outcome
                elif isinstance(outcome, BaseException):
                    raise outcome
            begin, size = begin + size, size * 2
        if lost is not None:
            raise lost

    async def _perform(self, write: Write) -> None:
        match write:
            case Create():
                await self._create(write)
            case Replace(resource, body, subresource, done):
                self._observe(resource, await self._kube.replace(resource, body, subresource=subresource))
                if done:
                    self._recorder.record(done)
            case Patch(resource, target, patch, kind, subresource, done):
                name, namespace = target["metadata"]["name"], target["metadata"].get("namespace")
                if isinstance(patch, list):
                    patch = [{"op": "test", "path": "/metadata/uid", "value": target["metadata"]["uid"]}, *patch]
                answer = await self._kube.patch(resource, name, patch, namespace, kind=kind, subresource=subresource)
                self._observe(resource, answer)
                if done:
                    self._recorder.record(done)
            case Delete():
                await self._delete(write)

    async def _create(self, write: Create) -> None:
        try:
            answer = await self._create_under_some_name(write.resource, write.body)
        except KubeError as error:
            if write.refused and not is_lost_race(error):
                self._recorder.record(write.refused, error=error.message)
            raise
        self._observe(write.resource, answer)
        if write.done:
            self._recorder.record(write.done, name=answer["metadata"]["name"])

    async def _create_under_some_name(self, resource: Resource, body: Object) -> Object:
        draws = 1 if "name" in body["metadata"] else DRAWS
        while True:
            draws -= 1
            try:
                return await self._create_once(resource, with_name(body))
            except KubeError as error:
                if error.code != 409 or draws == 0:
                    raise

    async def _create_once(self, resource: Resource, body: Object) -> Object:
        """What was created, however often the answer got lost, or told of no more than a failure of the server."""
        meta, delay, asked, failures = body["metadata"], FIRST_DELAY, False, 0
        while True:
            try:
                try:
                    return await self._kube.create(resource, body, meta["namespace"])
                except KubeError as error:
                    if not (asked and error.code == 409):
                        raise
                    there = await self._kube.get(resource, meta["name"], meta["namespace"])
                    if controller_of(there) != controller_of(body):
                        raise
                    return there
            except (KubeError, *NO_ANSWER) as error:
                if isinstance(error, KubeError):
                    failures += 1
                    if error.code < 500 or failures > MOST_FAILURES:
                        raise
                log.warning(
                    "whether %s was created is unknown (%s), again in %s", meta["name"], describe(error), delay
                )
                asked = True
            await asyncio.sleep(delay.total_seconds())
            delay = min(delay * 2, LAST_DELAY)

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
            # Also where another one has its name by now.
            if error.code in (404, 409):
                return
            if write.refused:
                self._recorder.record(write.refused, error=error.message)
            raise
        # What is gone at once is answered with a Status; what lingers, with itself.
        if answer.get("kind") == write.resource.kind:
            self._observe(write.resource, answer)
        if write.done:
            self._recorder.record(write.done, name=meta["name"])

    def _observe(self, resource: Resource, answer: Object) -> None:
        if informer := self._informers.get(resource):
            informer.observe(answer)


def with_name(body: Object) -> Object:
    meta = body["metadata"]
    if "name" in meta:
        return body
    return {**body, "metadata": {**meta, "name": drawn_name(meta["generateName"], random.randbytes(DRAWN))}}
