"""The upstream programs a local cluster runs, in one of three ways.

`build` compiles them from pinned Go modules: it needs only a Go module proxy, which reaches further than any other
download, and takes about 12 minutes, once. `upstream` downloads the official releases of the same versions, in one
or two minutes where GitHub and dl.k8s.io, or a mirror of them, can be reached. A folder is for who has the
programs already. `auto` takes what the cache holds, else what upstream answers with, else it builds; it costs a
machine without internet a few seconds.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from clusters.local.toolchain.build import build
from clusters.local.toolchain.groups import GROUPS, Group, ToolchainError
from clusters.local.toolchain.upstream import download, fetch_checksums
from virtflow.terminal import say

__all__ = ["GROUPS", "Group", "Toolchain", "ToolchainError", "cached", "check_folder", "find_toolchain"]

PATIENCE = timedelta(seconds=60)
"""With upstream, when there is no other way."""
IMPATIENCE = timedelta(seconds=4)
"""With upstream, when building is the other way."""
VERSION_LIMIT = timedelta(seconds=10)


@dataclass(frozen=True)
class Toolchain:
    """Where each program is."""

    folders: tuple[Path, ...]

    def program(self, name: str) -> Path:
        for folder in self.folders:
            if (folder / name).exists():
                return folder / name
        raise ToolchainError(f"The program {name} is not in {', '.join(map(str, self.folders))}.")


def find_toolchain(choice: str, cache_home: Path, mirror: str = "") -> Toolchain:
    """The toolchain of a setting: `auto`, `build`, `upstream`, or a folder that holds it. Says which it took."""
    cache = cache_home / "toolchain"
    match choice:
        case "auto":
            return Toolchain(_automatic(cache, mirror))
        case "build":
            return Toolchain(tuple(build(group, cache) for group in GROUPS))
        case "upstream":
            return Toolchain(_from_upstream(cache, mirror))
        case _:
            others = check_folder(Path(choice))
            more = f": not the pinned patches, but {', '.join(others)}" if others else ""
            say("!" if others else "✓", f"Toolchain: the programs in {Path(choice).absolute()}{more}")
            return Toolchain((Path(choice).absolute(),))


def cached(group: Group, cache: Path) -> tuple[Path, str] | None:
    """The group's folder in the cache and how it came there, if it is there."""
    for folder, how in ((group.built(cache), "compiled"), (group.downloaded(cache), "downloaded")):
        if folder.exists():
            return folder, how
    return None


def _automatic(cache: Path, mirror: str) -> tuple[Path, ...]:
    missing = [group for group in GROUPS if cached(group, cache) is None]
    if missing:
        try:
            checksums = fetch_checksums(missing, mirror, IMPATIENCE)
            say("✓", f"Toolchain: upstream answers, so it is downloaded into {cache}")
            for group in missing:
                download(group, cache, mirror, checksums)
        except ToolchainError as error:
            say("!", f"Toolchain: it is compiled, once, because it cannot be downloaded: {error}")
            for group in missing:
                if cached(group, cache) is None:
                    build(group, cache)
    found = [entry for group in GROUPS if (entry := cached(group, cache))]
    if not missing:
        say("✓", f"Toolchain: {' and '.join(sorted({how for _, how in found}))} earlier, in {cache}")
    return tuple(folder for folder, _ in found)


def _from_upstream(cache: Path, mirror: str) -> tuple[Path, ...]:
    missing = [group for group in GROUPS if not group.downloaded(cache).exists()]
    try:
        checksums = fetch_checksums(missing, mirror, PATIENCE) if missing else {}
        return tuple(download(group, cache, mirror, checksums) for group in GROUPS)
    except ToolchainError as error:
        raise ToolchainError(
            f"The toolchain cannot be downloaded: {error} Type the command again, name another mirror in "
            f"VIRTFLOW_MIRROR, or say TOOLCHAIN=build to have it compiled."
        ) from error


def check_folder(folder: Path) -> list[str]:
    """The programs in it that are of another patch than the pinned one, which is fine.

    Raises ToolchainError if a program is missing, does not run, or is of another minor version: that one has other
    flags and fields than virtflow knows.
    """
    wanted = [program for group in GROUPS for program in group.programs]
    missing = [program for program in wanted if not os.access(folder / program, os.X_OK)]
    if missing:
        raise ToolchainError(
            f"The toolchain folder {folder} lacks {', '.join(missing)}. It must hold all of "
            f"{', '.join(wanted)} as executable files; or say TOOLCHAIN=auto to have them downloaded or compiled."
        )
    patches: list[str] = []
    wrong: list[str] = []
    for group in GROUPS:
        for program in group.programs:
            found, pinned = _version(folder / program), group.version(program)
            if found and found != pinned:
                (patches if _minor(found) == _minor(pinned) else wrong).append(f"{program} {found} (for {pinned})")
    if wrong:
        raise ToolchainError(
            f"The toolchain folder {folder} holds {', '.join(wrong)}. Other minor versions have other flags and "
            f"fields than virtflow knows. Put the ones it is written for there, or say TOOLCHAIN=auto."
        )
    return patches


def _version(program: Path) -> str | None:
    """What it calls itself; None if it was compiled without a name for its version."""
    arguments = ["version", "--client"] if program.name == "kubectl" else ["--version"]
    try:
        result = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=VERSION_LIMIT.total_seconds()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(
            f"{program} does not run here: {error}. Say TOOLCHAIN=auto to have the toolchain downloaded or compiled."
        ) from None
    found = re.search(r"\d+\.\d+\.\d+", result.stdout)
    return found[0] if found and found[0] != "0.0.0" else None


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
