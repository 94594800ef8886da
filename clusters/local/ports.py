"""Ports nobody uses.

Not the kernel's choice (port 0): it takes them from where it also takes the near ends of outgoing
connections, of which a starting cluster makes hundreds, and one of those may hold the port by the time its
program binds it. Below that range are kwokctl's own choices, which count down from 32767; these lie lower.
"""

import contextlib
import random
import socket

__all__ = ["free_ports"]

RANGE = range(15_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that were free a moment ago, no two the same."""
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if len(found) == count:
            break
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found
