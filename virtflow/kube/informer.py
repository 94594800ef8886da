"""A live copy of one kind of object: one list, then one watch, shared by whoever asks.

Why not an operator library: kopf's create, update and daemon handlers mark the objects (finalizers,
annotations), which a stand-in must not do; its event handlers do not, but they never retry and know nothing
of an object's owner, so that only its watch would be left. The official client's informer is a thread over
the synchronous client. And the harness needs the same shared watch outside any operator, for its waits.

The copy reads its own writes: pass what the kube-apiserver answered to `observe`, and a reconciler does not
create a second time what its watch has not shown it yet.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from datetime import timedelta

from virtflow.kube.client import NO_ANSWER, KubeClient, KubeError, UnreadableAnswer, describe
from virtflow.kube.resources import Object, Resource

__all__ = ["REFUSED_FOR", "Informer", "Key"]

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace ("" for cluster-wide objects) and name."""

Listener = Callable[[Object | None, Object | None], None]
"""Called with the object before and after; None stands for "is not there". Must not block."""

WATCH_LASTS = timedelta(minutes=5)
FIRST_DELAY, LAST_DELAY = timedelta(milliseconds=100), timedelta(seconds=5)
REFUSED_FOR = timedelta(seconds=10)
"""How long a kube-apiserver may call it forbidden: one that has just started does not know its roles yet."""


def key_of(obj: Object) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def version_of(obj: Object) -> int:
    # Since Kubernetes 1.35 resourceVersions of one resource are promised to be comparable integers.
    return int(obj["metadata"]["resourceVersion"])


class Informer:
    """Objects of one resource, by key. Use `async with informer.running():` around whatever reads it.

    `selector` and `fields`, a label and a field selector, say which: what no longer matches counts as gone.
    """

    def __init__(
        self,
        kube: KubeClient,
        resource: Resource,
        *,
        namespace: str | None = None,
        selector: str | None = None,
        fields: str | None = None,
    ) -> None:
        self.resource = resource
        self._kube = kube
        self._path = resource.path(namespace)
        selectors = {"labelSelector": selector, "fieldSelector": fields}
        self._query = {name: value for name, value in selectors.items() if value}
        self._objects: dict[Key, Object] = {}
        # The version up to which the copy has heard of everything.
        self._complete = 0
        self._listeners: list[Listener] = []
        self._waiters: defaultdict[Key, set[asyncio.Event]] = defaultdict(set)
        self._synced = asyncio.Event()

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def get(self, namespace: str, name: str) -> Object | None:
        """The object as last seen. Shared: copy it before changing it."""
        return self._objects.get((namespace, name))

    def items(self) -> Iterable[Object]:
        return self._objects.values()

    def observe(self, obj: Object) -> None:
        """Take in an object as the kube-apiserver sent it, unless a newer one, or its end, is known already."""
        # An object that is no newer than `_complete` and not here has ended.
        if version_of(obj) > self._complete:
            self._take(obj)

    async def catch_up(self) -> None:
        """Hear of everything that is so by now, however late the watch is, or whether there is none at the moment.

        By another list: raises what `KubeClient.request` raises.
        """
        await self._list()

    async def wait_for(self, namespace: str, name: str, done: Callable[[Object | None], bool]) -> Object | None:
        """The object once `done` holds of it: at once if it does already, else at the event that makes it so.

        Bound the wait from outside (`asyncio.timeout`).
        """
        changed = asyncio.Event()
        key = (namespace, name)
        self._waiters[key].add(changed)
        try:
            await self._synced.wait()
            while not done(found := self._objects.get(key)):
                changed.clear()
                await changed.wait()
            return found
        finally:
            self._waiters[key].discard(changed)
            if not self._waiters[key]:
                del self._waiters[key]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the copy up to date within this block, which is entered once the first list is in.

        The block is cancelled, and raises KubeError, when the kube-apiserver does not let it watch (401, 403), and
        that for a while: nothing is worse than to go on with a copy that has silently stopped.
        """
        task = asyncio.create_task(self._run(), name=f"informer {self.resource.plural}")
        owner = asyncio.current_task()
        assert owner is not None

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                owner.cancel()

        try:
            synced = asyncio.create_task(self._synced.wait())
            await asyncio.wait({task, synced}, return_when=asyncio.FIRST_COMPLETED)
            synced.cancel()
            if task.done():
                task.result()
            task.add_done_callback(ended)
            yield
        except asyncio.CancelledError:
            if task.done() and not task.cancelled():
                owner.uncancel()
                task.result()
            raise
        finally:
            task.remove_done_callback(ended)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        version: str | None = None
        delay = FIRST_DELAY
        refused_since: float | None = None
        while True:
            try:
                if version is None:
                    version = await self._list()
                    self._synced.set()
                async for event in self._watch(version):
                    version = event["object"]["metadata"]["resourceVersion"]
                    # Unless a list has been quicker: what that knows the end of must not come back.
                    if int(version) > self._complete:
                        self._handle(event["type"], event["object"])
                        self._complete = int(version)
                    delay = FIRST_DELAY
                refused_since = None
                continue
            except KubeError as error:
                refused_since = (refused_since or time.monotonic()) if error.code in (401, 403) else None
                if refused_since and time.monotonic() - refused_since >= REFUSED_FOR.total_seconds():
                    raise
                if error.code == 410:
                    version = None
                    continue
                problem: Exception = error
            except NO_ANSWER as error:
                problem, refused_since = error, None
                if isinstance(error, UnreadableAnswer):
                    # A watch from the same version would come to the same event again.
                    version = None
            log.warning("watch of %s lost (%s), again in %s", self.resource.plural, describe(problem), delay)
            await asyncio.sleep(delay.total_seconds())
            delay = min(delay * 2, LAST_DELAY)

    async def _list(self) -> str:
        answer = await self._kube.request("GET", self._path, query=self._query)
        version: str = answer["metadata"]["resourceVersion"]
        if int(version) < self._complete:
            # The watch has been quicker.
            return version
        listed: set[str] = set()
        for item in answer["items"]:
            # Items of a list carry neither; whoever takes one from the copy needs both to write it back.
            item["apiVersion"], item["kind"] = self.resource.api_version, self.resource.kind
            listed.add(item["metadata"]["uid"])
            self._take(item)
        for obj in list(self._objects.values()):
            # What is newer than the list was put here by `observe` after the list was made.
            if obj["metadata"]["uid"] not in listed and version_of(obj) <= int(version):
                self._forget(obj)
        self._complete = int(version)
        return version

    async def _watch(self, version: str) -> AsyncGenerator[Object, None]:
        seconds = int(WATCH_LASTS.total_seconds())
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        # The server ends the watch; the client's own limit is for a server that no longer answers at all.
        async with contextlib.aclosing(
            self._kube.stream(self._path, query, WATCH_LASTS + timedelta(seconds=15))
        ) as events:
            async for event in events:
                if event["type"] == "ERROR":
                    raise KubeError(event["object"].get("code", 500), event["object"], f"WATCH {self._path}")
                yield event

    def _handle(self, kind: str, obj: Object) -> None:
        if kind in ("ADDED", "MODIFIED"):
            self._take(obj)
        elif kind == "DELETED":
            known = self._objects.get(key_of(obj))
            if known is not None and known["metadata"]["uid"] == obj["metadata"]["uid"]:
                self._forget(obj)

    def _take(self, obj: Object) -> None:
        key = key_of(obj)
        known = self._objects.get(key)
        if known is not None and version_of(known) >= version_of(obj):
            return
        if known is not None and known["metadata"]["uid"] != obj["metadata"]["uid"]:
            self._forget(known)
            known = None
        self._objects[key] = obj
        self._notify(key, known, obj)

    def _forget(self, obj: Object) -> None:
        key = key_of(obj)
        known = self._objects.pop(key)
        self._notify(key, known, None)

    def _notify(self, key: Key, old: Object | None, new: Object | None) -> None:
        for listener in self._listeners:
            listener(old, new)
        for waiter in self._waiters.get(key, ()):
            waiter.set()
