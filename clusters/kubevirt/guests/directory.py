"""Which guests there are, and which of them a client's connection reaches.

A guest lives as long as its VMI is Running. As behind a Service, being Ready decides only about new
connections: a connection that reached a guest stays with it until one of the two is gone, because kube-proxy
balances connections and never sees requests. Load that never reconnects therefore never reaches the guests
that a scale-out adds, here as on a real cluster.

A guest whose VMI is Paused stands still: it refuses what comes and uses no CPU, and the connections to it stay. What
it was working on is refused, too, because whoever asked would have given up before it went on.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from datetime import timedelta
from itertools import count

from kubernetes.utils.quantity import parse_quantity

from clusters.kubevirt.guests.machine import Machine, Meter
from virtflow.kube import Object

__all__ = ["Connection", "Directory", "Guest", "cores_of"]


class Guest:
    """What runs inside one VMI, from boot to end."""

    def __init__(self, vmi: Object, now: timedelta) -> None:
        meta = vmi["metadata"]
        self.uid: str = meta["uid"]
        self.name: str = meta["name"]
        self.owner = controller_uid(meta)
        self.cores = cores_of(vmi)
        self.ready = self.ended = False
        self.connections = 0
        self.last_picked = 0
        self.go_on(now)

    def go_on(self, now: timedelta) -> None:
        """With nothing to do yet."""
        self.paused = False
        self.machine = Machine(self.cores)
        self.meter = Meter(self.machine, now)
        self.stopped = asyncio.Event()

    def pause(self, now: timedelta) -> None:
        """Drop all work."""
        self.stopped.set()
        self.go_on(now)
        self.paused = True

    def end(self) -> None:
        self.ended = True
        self.stopped.set()


class Connection:
    """A client's connection, and the guest it reached through each front door (by the replica set's uid)."""

    def __init__(self) -> None:
        self.pins: dict[str, Guest] = {}

    def close(self) -> None:
        for guest in self.pins.values():
            guest.connections -= 1
        self.pins.clear()


class Directory:
    """The guests, kept by an informer of VMIs (`informer.listen(directory.follow)`)."""

    def __init__(self, clock: Callable[[], timedelta]) -> None:
        self._clock = clock
        self._guests: dict[tuple[str, str], Guest] = {}
        self._picks = count(1)

    def follow(self, old: Object | None, new: Object | None) -> None:
        vmi = new or old
        assert vmi is not None
        key = vmi["metadata"].get("namespace", ""), vmi["metadata"]["name"]
        guest = self._guests.get(key)
        if new is None or new.get("status", {}).get("phase") != "Running":
            if guest is not None:
                del self._guests[key]
                guest.end()
            return
        if guest is None:
            guest = self._guests[key] = Guest(new, self._clock())
        guest.ready = is_true(new, "Ready") and "deletionTimestamp" not in new["metadata"]
        if is_true(new, "Paused") != guest.paused:
            change = guest.go_on if guest.paused else guest.pause
            change(self._clock())

    def guests(self) -> Iterable[Guest]:
        return self._guests.values()

    def get(self, namespace: str, name: str) -> Guest | None:
        return self._guests.get((namespace, name))

    def route(self, replica_set: str, connection: Connection) -> Guest | None:
        """The guest behind a front door for this connection; None if there is none Ready to take it.

        A new connection goes to the guest with the fewest, in turn among equals.
        """
        pinned = connection.pins.get(replica_set)
        if pinned is not None and not pinned.ended:
            return pinned
        members = [guest for guest in self._guests.values() if guest.ready and guest.owner == replica_set]
        if not members:
            return None
        chosen = min(members, key=lambda guest: (guest.connections, guest.last_picked))
        chosen.connections += 1
        chosen.last_picked = next(self._picks)
        connection.pins[replica_set] = chosen
        return chosen


def is_true(vmi: Object, kind: str) -> bool:
    conditions = vmi.get("status", {}).get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def controller_uid(meta: Object) -> str | None:
    for reference in meta.get("ownerReferences", []):
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def cores_of(vmi: Object) -> int:
    """Cores of a VMI's guest: its CPU topology, else its CPU request rounded up, else 1."""
    domain = vmi["spec"]["domain"]
    topology = [domain.get("cpu", {}).get(part) for part in ("cores", "sockets", "threads")]
    if any(topology):
        return math.prod(part or 1 for part in topology)
    request = domain.get("resources", {}).get("requests", {}).get("cpu", "1")
    cores: int = math.ceil(parse_quantity(request))
    return max(1, cores)
