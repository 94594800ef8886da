"""All that was recorded so far, found by who asks for it: a request, a virtual machine, a namespace.

Both logs are read once, as far as they go whenever somebody asks, and only writes that can prove something are
kept. So an observation costs what its own virtual machine wrote, however many there are beside it.

It is read on the event loop, a millisecond in two. A thread holds the interpreter's lock for five at a time, and
whatever the loop wakes up for would come that much later.

The order is that of arrival, by the server's clock, and the log's among equals. The log itself is in the order of
completion, and a server short of CPU may note a cause after its effect. But no effect is sent before its cause
has arrived.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from virtflow.sequence import create, scale
from virtflow.sequence.audit import (
    ACCESS_RECORD_START,
    EVENT_START,
    AccessRecord,
    Write,
    access_record_of,
    write_of,
)
from virtflow.sequence.tail import Tail, whole_records

__all__ = ["Records"]

ACTORS = create.ACTORS | scale.ACTORS
RESOURCES = frozenset(
    {"virtualmachines", "virtualmachineinstances", "pods", "virtualmachineinstancereplicasets"}
    | {"horizontalpodautoscalers", "tokenreviews", "subjectaccessreviews"}
)
REQUESTS_KEPT = 20_000
"""Of the gateway, the latest: a request's evidence is asked for as soon as its machine runs."""
SAME_KEPT = 20
"""Of those with one id, the latest: callers choose theirs, and may choose the same for ever."""
NAMESPACES_KEPT = 100
"""Of those that are gone, the latest: an activity that is tried again may ask after the scenario's end."""
SLICE = 0.001
"""Seconds of reading, after which as many are for others."""

Item = TypeVar("Item")
logger = logging.getLogger(__name__)


class Records:
    """The audit log's and the access log's. Nothing is read before the first `catch_up`."""

    def __init__(self, audit_log: Path, access_log: Path) -> None:
        self._logs = (
            _Log(audit_log, EVENT_START, self._take_event),
            _Log(access_log, ACCESS_RECORD_START, self._take_access),
        )
        self._reading = asyncio.Lock()
        self._namespaces: defaultdict[str, _Namespace] = defaultdict(_Namespace)
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._reviews: _Latest[Write] = _Latest()
        self._requests: _Latest[AccessRecord] = _Latest()

    async def catch_up(self) -> None:
        """Read what there is now. Cancelled, it keeps what it has read, and the next call goes on from there."""
        async with self._reading:
            began = time.perf_counter()
            for log in self._logs:
                while log.read_line():
                    if time.perf_counter() - began >= SLICE:
                        await asyncio.sleep(SLICE)
                        began = time.perf_counter()

    def of_request(self, request_id: str) -> list[AccessRecord]:
        """More than one if a caller sent the same id again."""
        return self._requests.get(request_id)

    def of_machine(self, namespace: str, name: str, review_ids: Collection[str] = ()) -> list[Write]:
        """The writes to a virtual machine and to what it owns, and the reviews with these audit ids.

        By arrival; among equals reviews come first.
        """
        own = self._namespaces[namespace].chain("virtualmachines", name) if namespace in self._namespaces else []
        reviews = [write for audit_id in review_ids for write in self._reviews.get(audit_id)]
        return sorted([*reviews, *own], key=lambda write: write.at)

    def of_namespace(self, namespace: str) -> list[Write]:
        writes = self._namespaces[namespace].writes if namespace in self._namespaces else []
        return sorted(writes, key=lambda write: write.at)

    def refused_pods(self, namespace: str) -> dict[str, list[datetime]]:
        """When virt-controller tried to make a pod there and was refused, as a quota refuses.

        By how the pods' names begin: each try draws an end of its own, and a machine's tries have the rest in common.
        """
        tries = self._namespaces[namespace].refused_pods if namespace in self._namespaces else {}
        return {launcher: sorted(moments) for launcher, moments in tries.items()}

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def _take_access(self, line: bytes) -> None:
        record = access_record_of(line)
        self._requests.add(record.request_id, record)

    def _take_event(self, line: bytes) -> None:
        write = write_of(line)
        if write is None:
            return
        if write.code >= 300:
            if write.code == 403 and write.user == scale.VIRT_CONTROLLER and write.resource == "pods":
                self._namespaces[write.namespace].refused_pods[write.name.rpartition("-")[0]].append(write.at)
            return
        if write.resource == "namespaces":
            self._note_namespace(write)
        elif write.resource in RESOURCES and (write.user in ACTORS or _ends_pod(write)):
            if write.namespace:
                self._namespaces[write.namespace].add(write)
            else:
                self._reviews.add(write.audit_id, write)

    def _note_namespace(self, write: Write) -> None:
        if write.subresource == "finalize":
            # The last write there is: the namespace is empty, and with its finalizer it goes.
            self._gone[write.name] = None
            self._gone.move_to_end(write.name)
            if len(self._gone) > NAMESPACES_KEPT:
                name, _ = self._gone.popitem(last=False)
                self._namespaces.pop(name, None)
        elif write.code == 201:
            self._gone.pop(write.name, None)


def _ends_pod(write: Write) -> bool:
    """Whoever does it: a controller whose node has failed, an eviction, or somebody by hand."""
    return write.resource == "pods" and write.verb == "delete"


class _Namespace:
    """Writes in the log's order, found by the object they are to and, over owners, by what that belongs to."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.refused_pods: defaultdict[str, list[datetime]] = defaultdict(list)
        self._to: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._owned: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)

    def add(self, write: Write) -> None:
        key = write.resource, write.name
        self._to[key].append(len(self.writes))
        self.writes.append(write)
        if write.owner:
            self._owned[write.owner.uid].add(key)

    def chain(self, resource: str, name: str) -> list[Write]:
        """The writes to an object and, whenever it was, to what it owns and what that owns."""
        found: set[tuple[str, str]] = set()
        wanted = {(resource, name)}
        while wanted:
            found |= wanted
            uids = {self.writes[place].uid for key in wanted if key in self._to for place in self._to[key]}
            wanted = {key for uid in uids if uid in self._owned for key in self._owned[uid]} - found
        return [self.writes[place] for place in sorted(place for key in found for place in self._to.get(key, ()))]


class _Latest(Generic[Item]):
    """What came last under the latest keys. A key is as late as what came last under it."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, deque[Item]] = OrderedDict()

    def add(self, key: str, item: Item) -> None:
        self._items.setdefault(key, deque(maxlen=SAME_KEPT)).append(item)
        self._items.move_to_end(key)
        if len(self._items) > REQUESTS_KEPT:
            self._items.popitem(last=False)

    def get(self, key: str) -> list[Item]:
        return [*self._items.get(key, ())]


class _Log:
    """Hands over each line, and names those that cannot be read."""

    def __init__(self, path: Path, start: bytes, take: Callable[[bytes], None]) -> None:
        self._path = path
        self._tail = Tail(path)
        self._start = start
        self._take = take
        self._unreadable = 0

    def read_line(self) -> bool:
        line = self._tail.next_line()
        if line is None:
            return False
        try:
            self._take(line)
        except ValueError:
            self._take_what_is_whole(line)
        return True

    def _take_what_is_whole(self, line: bytes) -> None:
        taken = 0
        for record in whole_records(line, self._start):
            with contextlib.suppress(ValueError):
                self._take(record)
                taken += 1
        self._unreadable += 1
        # Not its text: a body may hold what is nobody's business.
        logger.warning(
            "%s: line of %d bytes before byte %d is no record, as if its writer had been killed in it; %d whole ones "
            "were in it. Lines like this so far: %d",
            self._path,
            len(line),
            self._tail.position,
            taken,
            self._unreadable,
        )

    def close(self) -> None:
        self._tail.close()
