"""The embedded cluster: real Kubernetes as host processes, with stand-ins only where no program can be had.

`kubernetes` says how its own programs are run, `programs` what runs beside them, `start` in which order they
come up; `clusters.supervisor` keeps them all.
"""

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clusters.endpoints import ENDPOINTS_FILE, ClusterError, Endpoints
from clusters.local.toolchain import find_toolchain
from clusters.supervisor import Supervisor, last_lines
from virtflow.errors import InputError
from virtflow.settings import Settings

__all__ = ["LAYOUT", "ComponentStatus", "LocalCluster"]

LAYOUT = "3"
"""Of the state folder. One of another version, or of a creation that was interrupted, is made anew."""


@dataclass(frozen=True)
class ComponentStatus:
    """One process of the cluster, for people."""

    name: str
    state: str
    pid: int | None
    restarts: int
    """How often it died and was started again."""
    description: str
    log: Path

    @property
    def last_lines(self) -> str:
        """What it wrote last, indented."""
        return last_lines(self.log)


class LocalCluster:
    """The local cluster of one name. Its state is one folder outside the checkout."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.cluster
        self.folder = settings.state_home.resolve() / settings.cluster
        self._settings = settings
        self._supervisor = Supervisor(self.folder)

    @property
    def _endpoints_file(self) -> Path:
        return self.folder / ENDPOINTS_FILE

    def endpoints(self) -> Endpoints:
        """Raises ClusterError when the cluster is not up."""
        return Endpoints.load(self._endpoints_file)

    def is_up(self) -> bool:
        return self._endpoints_file.exists()

    def identity(self) -> str:
        """Tells this cluster from an earlier and from a later one of its name: each has a CA of its own."""
        try:
            return hashlib.sha256(self.endpoints().ca_cert.read_bytes()).hexdigest()[:16]
        except (ClusterError, FileNotFoundError):
            return ""

    def up(self, before_work: Callable[[Endpoints], None] = lambda _: None) -> Endpoints:
        """Bring everything up, or the part of it that is not; return when all of it answers.

        `before_work` is called when Temporal has been started, and before the worker is, unless it runs already.
        """
        # Late, because a status or a `down` need not wait for what this imports.
        from clusters.local.start import start

        settings = self._settings
        toolchain = find_toolchain(settings.toolchain, settings.cache_home, settings.mirror)
        with self._alone():
            self._make_folder()
            return start(self.name, self.folder, self._supervisor, toolchain, settings.nodes, before_work)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else brings this cluster up or down meanwhile."""
        # Not in the folder, which comes and goes.
        locks = self._settings.cache_home / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        with (locks / f"{self.name}-{digest}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_folder(self) -> None:
        layout = self.folder / "layout"
        if self.folder.exists() and not (layout.exists() and layout.read_text() == LAYOUT):
            self._remove()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        layout.write_text(LAYOUT)

    def await_recovered(self) -> None:
        """Until all of it answers, after something died. Raises ClusterError if something does not come back."""
        from clusters.local.start import await_recovered

        await_recovered(self.folder, self._supervisor, self.endpoints())

    def restart_worker(self) -> None:
        """So that it runs the code of this checkout as it is now."""
        self._supervisor.restart("worker")

    def status(self) -> list[ComponentStatus]:
        """Empty if there is no cluster."""
        programs = self._supervisor.states()
        keeper = [self._supervisor.own_state()] if programs else []
        return [
            ComponentStatus(
                state.name,
                state.state,
                state.pid,
                state.restarts,
                state.description,
                self._supervisor.log(state.name),
            )
            for state in [*programs, *keeper]
        ]

    def log(self, component: str) -> Path:
        """The log file of a component. Raises InputError, which names the components, if there is none."""
        logs = {status.name: status.log for status in self.status()}
        if component not in logs:
            raise InputError(f"There is no component {component!r}. There are: {', '.join(logs) or 'none'}.")
        if not logs[component].exists():
            raise ClusterError(f"{component} has not written anything yet: there is no {logs[component]}.")
        return logs[component]

    def down(self) -> None:
        """Stop every process and remove the state. A cluster that is not there is fine."""
        with self._alone():
            self._remove()

    def _remove(self) -> None:
        # Also without a folder: somebody may have removed it by hand while the cluster ran.
        self._supervisor.stop()
        if self.folder.exists():
            shutil.rmtree(self.folder)
