"""What can be made to fail on purpose, in a cluster that was made for it: nodes that kwok plays, programs it keeps.

Another cluster simply has neither. That is told before anything is touched, so that a feature with faults in it says
of any cluster whether it can be run there.
"""

import math
from collections.abc import Callable
from pathlib import Path

import psutil

from clusters.endpoints import ClusterError
from clusters.supervisor import Supervisor
from virtflow.kube import Object

__all__ = ["NOT_READY", "CannotFailError", "Programs", "check_node", "is_played"]

NOT_READY = "virtflow/not-ready"
"""A node with this annotation fails, and is well again without it. Its value is the reason that the node gives."""
PLAYED_BY_KWOK = "kwok.x-k8s.io/node"

FOLLOWERS = dict.fromkeys(("etcd", "kube-apiserver"), ("kube-controller-manager", "kube-scheduler", "kwok"))
"""What is to be started anew when a program comes back. Elsewhere the first two end by themselves when they cannot
renew their leases for ten seconds; here they have none, and would look again after pauses of up to a minute."""


class CannotFailError(ClusterError):
    """Nothing on this cluster could make it fail, or bring it back."""


def is_played(node: Object) -> bool:
    """By kwok, which lets it fail when it is told to."""
    return PLAYED_BY_KWOK in node["metadata"].get("annotations", {})


def check_node(node: Object) -> None:
    """Raises CannotFailError unless kwok plays this node."""
    if not is_played(node):
        name = node["metadata"]["name"]
        raise CannotFailError(
            f"Node {name} is a real one, which virtflow cannot make fail: that takes a local cluster. "
            f"`virtflow e2e --feature` runs the scenarios that have no such step."
        )


class Programs:
    """The programs of one cluster that its own supervisor keeps. Its calls block for a moment, `kill` for seconds."""

    def __init__(self, folder: Path) -> None:
        self._supervisor = Supervisor(folder)

    def kill(self, program: str) -> None:
        """Kill it as a crash would, and leave it so until it is started."""
        self._of_ours(program, lambda: self._supervisor.kill_program(program))

    def start(self, program: str) -> None:
        """Start it unless it runs; return before it is ready."""
        self._of_ours(program, lambda: self._supervisor.start(program, *FOLLOWERS.get(program, ())))

    def wake_followers(self, program: str) -> None:
        """Start anew what waits for a program that is back, instead of when it will look again."""
        for follower in FOLLOWERS.get(program, ()):
            self._supervisor.kill_program(follower)
            self._supervisor.start(follower)

    def has_waited_for(self, program: str) -> bool:
        """Whether any follower has: it began before the program did."""
        began = {each.name: began_at(each.pid) for each in self._supervisor.states()}
        return any(began[follower] < began[program] for follower in FOLLOWERS.get(program, ()))

    def is_down(self, program: str) -> bool:
        """Whether it was stopped, and nobody is about to start it."""
        return any(each.name == program and each.state == "STOPPED" for each in self._supervisor.states())

    def runs(self, program: str) -> bool:
        """Whether it does, and what follows it. Raises ClusterError, with its last lines, when one keeps dying."""
        return not self._supervisor.check(program, *FOLLOWERS.get(program, ()))

    def _of_ours(self, program: str, act: Callable[[], None]) -> None:
        if program not in {each.name for each in self._supervisor.states()}:
            raise CannotFailError(
                f"No {program} is kept by this cluster's own supervisor, so virtflow can neither take it down nor "
                f"bring it back: that takes a local cluster. `virtflow e2e --feature` runs the scenarios that have "
                f"no such step."
            )
        act()


def began_at(pid: int | None) -> float:
    """In seconds of the system's clock; what does not run is yet to begin."""
    try:
        return math.inf if pid is None else psutil.Process(pid).create_time()
    except psutil.Error:
        return math.inf
