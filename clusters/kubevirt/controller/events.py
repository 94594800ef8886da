"""Kubernetes Events: what a controller tells people about an object, `kubectl describe`'s last paragraph.

Written behind the reconcilers' backs, one after the other, because nothing waits for them and they must not
slow what people do wait for. An event's name is derived from what it says, so that saying it again, even after
a restart, counts up the one that is there. What a server gave as its reason is not part of that: it names what was
to be made, and that has another name each time.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from clusters.kubevirt.objects import format_time, now
from virtflow.kube import NO_ANSWER, KubeClient, KubeError, Object, describe
from virtflow.kube.resources import EVENTS

__all__ = ["Note", "Recorder"]

log = logging.getLogger(__name__)

BACKLOG = 10_000
REMEMBERED = 10_000


@dataclass(frozen=True)
class Note:
    """An Event in the making. The message may name what a write brought about: `{name}`, or `{error}`."""

    about: Object
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    component: str | None = None
    """Which part of the program says it, where it is not the recorder's own."""


class Recorder:
    """Takes notes at any time; `run` writes them as Events until it is cancelled."""

    def __init__(self, kube: KubeClient, component: str) -> None:
        self._kube = kube
        self._component = component
        self._backlog: asyncio.Queue[tuple[Note, str, str]] = asyncio.Queue(BACKLOG)
        self._counts: OrderedDict[str, int] = OrderedDict()

    def record(self, note: Note, *, name: str = "", error: str = "") -> None:
        message = note.message.format(name=name, error=error)
        gist = note.message.format(name=name, error="")
        meta = note.about["metadata"]
        # What went wrong is an exception too, and the work queue tells of that.
        level = logging.INFO if note.type == "Normal" else logging.DEBUG
        log.log(level, "%s %s/%s: %s", note.about["kind"], meta.get("namespace"), meta["name"], message)
        try:
            self._backlog.put_nowait((note, message, gist))
        except asyncio.QueueFull:
            log.warning("event dropped: %d are waiting to be written already", BACKLOG)

    async def run(self) -> None:
        while True:
            note, message, gist = await self._backlog.get()
            try:
                await self._write(note, message, gist)
            except (KubeError, *NO_ANSWER) as error:
                log.debug("event not written: %s", describe(error))

    async def _write(self, note: Note, message: str, gist: str) -> None:
        meta = note.about["metadata"]
        said = "\n".join((meta["uid"], note.type, note.reason, gist))
        name = f"{meta['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
        try:
            count = await self._count_up(note, message, name)
        except KubeError as error:
            if error.code != 404:
                raise
            # The one counted so far has expired.
            await self._create(note, message, name)
            count = 1
        self._counts[name] = count
        self._counts.move_to_end(name)
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    async def _count_up(self, note: Note, message: str, name: str) -> int:
        namespace = note.about["metadata"].get("namespace") or "default"
        count = self._counts.get(name)
        if count is None:
            try:
                await self._create(note, message, name)
                return 1
            except KubeError as error:
                if error.code != 409:
                    raise
            count = int((await self._kube.get(EVENTS, name, namespace)).get("count", 1))
        patch = {"count": count + 1, "lastTimestamp": format_time(now()), "message": message}
        await self._kube.patch(EVENTS, name, patch, namespace)
        return count + 1

    async def _create(self, note: Note, message: str, name: str) -> None:
        meta = note.about["metadata"]
        # An Event is in a namespace even where what it is about is in none.
        namespace = meta.get("namespace") or "default"
        time = format_time(now())
        event: Object = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": note.about["apiVersion"],
                "kind": note.about["kind"],
                **({"namespace": meta["namespace"]} if meta.get("namespace") else {}),
                "name": meta["name"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "type": note.type,
            "reason": note.reason,
            "message": message,
            "source": {"component": note.component or self._component},
            "reportingComponent": note.component or self._component,
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        await self._kube.create(EVENTS, event, namespace)
