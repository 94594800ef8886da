"""What the processes of a cluster have used of the machine."""

from dataclasses import dataclass

import psutil

from clusters.local import LocalCluster

__all__ = ["Usage", "usage_of"]

MIB = 2**20


@dataclass(frozen=True)
class Usage:
    """Of one process, since it started."""

    cpu: float
    """Seconds."""
    memory: float
    """MiB, resident now."""


def usage_of(cluster: LocalCluster) -> dict[str, Usage]:
    """By the program's name."""
    return {component.name: _usage(component.pid) for component in cluster.status() if component.pid}


def _usage(pid: int) -> Usage:
    process = psutil.Process(pid)
    with process.oneshot():
        times = process.cpu_times()
        return Usage(times.user + times.system, process.memory_info().rss / MIB)
