"""Which programs make up the toolchain, which versions, and where in the cache they lie.

The versions are said once, in the go.mod files. What is built and what is downloaded lies side by side under the
hash of what it was made from, so checkouts share it and a new pin is made beside the old one. It is renamed into
place when it is whole.
"""

import fcntl
import hashlib
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from virtflow.errors import InfrastructureError
from virtflow.terminal import phase

__all__ = ["GROUPS", "Group", "Lock", "Show", "ToolchainError", "make_once", "only_one"]

HERE = Path(__file__).parent
KUBERNETES = "k8s.io/kubernetes"
KWOK = "sigs.k8s.io/kwok"

Show = Callable[[str], None]
Lock = int
"""The descriptor of a lock's file: who inherits it holds the lock too."""


class ToolchainError(InfrastructureError):
    """A program is missing, or could not be built or downloaded."""


@dataclass(frozen=True)
class Group:
    """Programs that are built together. `modules` names the Go module each comes from; `renames` maps what Go
    calls a program to what the field does."""

    name: str
    modules: Mapping[str, str]
    ldflags: str = "-s -w"
    renames: tuple[tuple[str, str], ...] = field(default=())

    @property
    def programs(self) -> tuple[str, ...]:
        return tuple(self.modules)

    @property
    def module(self) -> Path:
        return HERE / self.name

    def version(self, program: str) -> str:
        """As go.mod pins it, without the v: `1.36.3`."""
        path = self.modules[program]
        text = (self.module / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(path)} v(\S+)", text, re.MULTILINE)
        if found is None:
            raise ToolchainError(f"{self.module / 'go.mod'} does not pin {path}.")
        return found[1]

    def digest(self) -> str:
        """Of all that decides what comes out: the pins, the flags, the platform."""
        sha = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            sha.update((self.module / name).read_bytes())
        sha.update(f"{self.ldflags} {self.renames} {platform.system()} {platform.machine()}".encode())
        return sha.hexdigest()[:12]

    def built(self, cache: Path) -> Path:
        return cache / f"{self.name}-{self.digest()}"

    def downloaded(self, cache: Path) -> Path:
        return cache / f"{self.name}-upstream-{self.digest()}"


GROUPS = (
    Group(
        "kubernetes",
        {
            "etcd": "go.etcd.io/etcd/server/v3",
            "kube-apiserver": KUBERNETES,
            "kube-controller-manager": KUBERNETES,
            "kube-scheduler": KUBERNETES,
            "kubectl": KUBERNETES,
            "kwok": KWOK,
            "metrics-server": "sigs.k8s.io/metrics-server",
        },
        # Without it the programs call themselves v0.0.0.
        ldflags="-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3",
        renames=(("server", "etcd"),),
    ),
    Group("temporal", {"temporal": "github.com/temporalio/cli"}),
)


def make_once(group: Group, done: Path, title: str, make: Callable[[Path, Show, Lock], None]) -> None:
    """Have `make` fill a folder, which becomes `done` when it is whole; nothing is left of one that is not.

    Who comes while another is at it waits, and finds it done.
    """
    cache = done.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with phase(title) as show, only_one(cache / f"{group.name}.lock", show) as lock:
            if done.exists():
                return
            for left in cache.glob(f".{group.name}-*"):
                # Of somebody who was killed. The lock is ours, so nobody is at work in it.
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{group.name}-") as folder:
                out = Path(folder) / "bin"
                out.mkdir()
                make(out, show, lock)
                out.rename(done)
    except OSError as error:
        raise ToolchainError(
            f"The toolchain cannot be written into {cache}: {error}. Make room, or that folder writable, or set "
            f"VIRTFLOW_CACHE_HOME to another, and type the command again."
        ) from error


@contextmanager
def only_one(lock: Path, show: Show) -> Iterator[Lock]:
    with lock.open("w") as file:
        show("waiting for another who makes the same")
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
