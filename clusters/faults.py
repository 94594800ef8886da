"""What can be made to fail on purpose, in a cluster that was made for it: nodes that kwok plays, programs it keeps.

Another cluster simply has neither. That is told before anything is touched, so that a feature with faults in it says
of any cluster whether it can be run there.
"""

from collections.abc import Callable
from pathlib import Path

from clusters.endpoints import ClusterError
from clusters.supervisor import Supervisor
from virtflow.kube import Object

__all__ = ["NOT_READY", "CannotFailError", "Programs", "check_node"]

NOT_READY = "virtflow/not-ready"
"""A node with this annotation fails, and is well again without it. Its value is the reason that the node gives."""
PLAYED_BY_KWOK = "kwok.x-k8s.io/node"


class CannotFailError(ClusterError):
    """Nothing on this cluster could make it fail, or bring it back."""


def check_node(node: Object) -> None:
    """Raises CannotFailError unless kwok plays this node."""
    meta = node["metadata"]
    if PLAYED_BY_KWOK not in meta.get("annotations", {}):
        raise CannotFailError(
            f"Node {meta['name']} is a real one, which virtflow cannot make fail: that takes a local cluster. "
            f"`virtflow e2e --only` runs the scenarios without such a step."
        )


class Programs:
    """The programs of one cluster that its own supervisor keeps. Its calls block for a moment, `kill` for seconds."""

    def __init__(self, folder: Path) -> None:
        self._supervisor = Supervisor(folder)

    def kill(self, program: str) -> None:
        """Kill it as a crash would, and leave it so until it is started."""
        self._of_ours(program, self._supervisor.kill_program)

    def start(self, program: str) -> None:
        """Start it unless it runs; return before it is ready."""
        self._of_ours(program, self._supervisor.start)

    def is_down(self, program: str) -> bool:
        """Whether it was stopped, and nobody is about to start it."""
        return any(each.name == program and each.state == "STOPPED" for each in self._supervisor.states())

    def runs(self, program: str) -> bool:
        """Raises ClusterError, with its last lines, when it keeps dying."""
        return not self._supervisor.check(program)

    def _of_ours(self, program: str, act: Callable[[str], None]) -> None:
        if program not in {each.name for each in self._supervisor.states()}:
            raise CannotFailError(
                f"No {program} is kept by this cluster's own supervisor, so virtflow can neither take it down nor "
                f"bring it back: that takes a local cluster. `virtflow e2e --only` runs the scenarios without such a "
                f"step."
            )
        act(program)
