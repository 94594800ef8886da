"""The ports of a cluster's programs, all on 127.0.0.1.

Not the kernel's choice (port 0): it takes them from where it also takes the near ends of outgoing
connections, of which a starting cluster makes hundreds, and one of those may hold the port by the time its
program binds it. These lie below that range.
"""

import contextlib
import dataclasses
import json
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from virtflow.files import write_whole

__all__ = ["Ports", "free_ports"]

RANGE = range(15_000, 30_000)


@dataclass(frozen=True)
class Ports:
    """Chosen for a cluster's whole life, unless a stranger has taken one while the cluster did not run."""

    etcd: int
    etcd_peers: int
    kube_apiserver: int
    kube_controller_manager: int
    kube_scheduler: int
    kwok: int
    virt_api: int
    virt_handler: int
    gateway: int
    guests: int
    metrics_server: int
    temporal: int
    temporal_ui: int

    @classmethod
    def choose(cls, file: Path, *, in_use: bool) -> "Ports":
        """The ports in the file, which afterwards holds what is returned.

        Missing ones are chosen, and so are those that are taken, unless it is the cluster itself that has them
        `in_use`. Which port is whose is in no object of the cluster that `up` does not write again.
        """
        known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        names = [field.name for field in dataclasses.fields(cls)]
        kept = {name: known[name] for name in names if name in known and (in_use or _is_free(known[name]))}
        missing = [name for name in names if name not in kept]
        ports = cls(**kept, **dict(zip(missing, free_ports(len(missing), but=kept.values()), strict=True)))
        write_whole(file, json.dumps(dataclasses.asdict(ports), indent=1) + "\n")
        return ports


def free_ports(count: int, but: Iterable[int] = ()) -> list[int]:
    """Ports on 127.0.0.1 that were free a moment ago, no two the same."""
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if len(found) == count:
            break
        if port not in but and _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket() as probe:
        # As servers do: a connection that ended a moment ago does not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False
