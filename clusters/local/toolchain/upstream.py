"""The toolchain, downloaded: the official releases of the versions that go.mod pins.

Every download is held against the SHA-256 that its origin publishes: Kubernetes beside each program, etcd and
Temporal in one file for each release. kwok and metrics-server publish programs without checksums; theirs are the
digests that GitHub itself computes when a release's file is uploaded and states in its API. Without a checksum
nothing is downloaded. All checksums are asked for first: they are small, and whether they are there within a
few seconds is also how one knows whether upstream can be reached from here at all.

A mirror holds the same files under `<mirror>/<host>/<path>` of the official address, as a caching proxy or
`wget --mirror` makes it. The checksums come from it too, so it must be one that is trusted.
"""

import asyncio
import hashlib
import json
import platform
import shutil
import tarfile
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import anyio

from clusters.local.toolchain.groups import KUBERNETES, KWOK, Group, Lock, Show, ToolchainError, make_once

__all__ = ["Checksums", "Release", "download", "fetch_checksums", "releases"]

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
TRIES = 3
PAUSE = timedelta(milliseconds=500)
"""Before the second try; twice as long before the third."""
# A body may take long, but not silently.
BODY_LIMIT = aiohttp.ClientTimeout(total=1800, connect=15, sock_read=30)
CHUNK = 1 << 20
T = TypeVar("T")

Checksums = dict[str, str]
"""URL of a download → its SHA-256."""


@dataclass(frozen=True)
class Release:
    """One program's official download. `member` is its path in the archive, if it is one. `read` finds the
    file's SHA-256 in the text at `checksum`."""

    url: str
    checksum: str
    read: Callable[[str, str], str | None]
    member: str | None = None

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]


def releases(group: Group) -> dict[str, Release]:
    """Program → where its release lies. Raises ToolchainError on a platform nobody releases for."""
    if platform.system() != "Linux" or platform.machine() not in ARCHITECTURES:
        raise ToolchainError(
            f"The toolchain is downloaded for Linux on {' and '.join(ARCHITECTURES)} only, and this is "
            f"{platform.system()} on {platform.machine()}."
        )
    arch = ARCHITECTURES[platform.machine()]
    return {
        program: _release(group.modules[program], program, group.version(program), arch) for program in group.programs
    }


def _release(module: str, program: str, version: str, arch: str) -> Release:
    if module == KUBERNETES:
        url = f"https://dl.k8s.io/release/v{version}/bin/linux/{arch}/{program}"
        return Release(url, f"{url}.sha256", sha256_in_lines)
    if module == "go.etcd.io/etcd/server/v3":
        folder, name = (
            f"https://github.com/etcd-io/etcd/releases/download/v{version}",
            f"etcd-v{version}-linux-{arch}",
        )
        return Release(f"{folder}/{name}.tar.gz", f"{folder}/SHA256SUMS", sha256_in_lines, f"{name}/etcd")
    if module == "github.com/temporalio/cli":
        folder = f"https://github.com/temporalio/cli/releases/download/v{version}"
        archive = f"{folder}/temporal_cli_{version}_linux_{arch}.tar.gz"
        return Release(archive, f"{folder}/checksums.txt", sha256_in_lines, "temporal")
    repository = {KWOK: "kubernetes-sigs/kwok", "sigs.k8s.io/metrics-server": "kubernetes-sigs/metrics-server"}[
        module
    ]
    return Release(
        f"https://github.com/{repository}/releases/download/v{version}/{program}-linux-{arch}",
        f"https://api.github.com/repos/{repository}/releases/tags/v{version}",
        sha256_in_release,
    )


def sha256_in_lines(text: str, file: str) -> str | None:
    """From what sha256sum writes: lines of a sum and a file's name; or from a sum alone."""
    for line in text.splitlines():
        match line.split():
            case [sum_, name] if name.removeprefix("*") == file:
                return _sha256(sum_)
            case [sum_]:
                return _sha256(sum_)
    return None


def sha256_in_release(text: str, file: str) -> str | None:
    """From GitHub's description of a release."""
    try:
        digests = {asset["name"]: str(asset["digest"]) for asset in json.loads(text)["assets"]}
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    kind, _, sum_ = digests.get(file, "").partition(":")
    return _sha256(sum_) if kind == "sha256" else None


def _sha256(text: str) -> str | None:
    return text.lower() if len(text) == 64 and set(text.lower()) <= set("0123456789abcdef") else None


def fetch_checksums(groups: Sequence[Group], mirror: str, limit: timedelta) -> Checksums:
    """Of all the groups' downloads, within the limit as a whole. Raises ToolchainError that says why not."""
    wanted = [release for group in groups for release in releases(group).values()]
    try:
        return _within(limit, lambda: _fetch_checksums(wanted, mirror))
    except TimeoutError:
        where = mirror or "dl.k8s.io and github.com"
        raise ToolchainError(f"{where} did not answer within {limit.total_seconds():.0f} s.") from None


def _within(limit: timedelta, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In a thread that can be left behind: the resolver cannot be cancelled, and an event loop that ends waits
    for it, for as long as no name server answers."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(asyncio.wait_for(work(), limit.total_seconds())))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit.total_seconds() + 0.5)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


async def _fetch_checksums(wanted: Sequence[Release], mirror: str) -> Checksums:
    async with _session() as http:
        addresses = list({release.checksum for release in wanted})
        texts = dict(
            zip(addresses, await asyncio.gather(*(_text(http, _at(mirror, url)) for url in addresses)), strict=True)
        )
    checksums = {}
    for release in wanted:
        found = release.read(texts[release.checksum], release.file)
        if found is None:
            raise ToolchainError(
                f"{_at(mirror, release.checksum)} states no SHA-256 of {release.file}, and nothing is downloaded "
                f"without one."
            )
        checksums[release.url] = found
    return checksums


def download(group: Group, cache: Path, mirror: str, checksums: Checksums) -> Path:
    """The folder of the group's programs, downloaded now unless they are there."""
    done = group.downloaded(cache)

    def make(out: Path, show: Show, _: Lock) -> None:
        asyncio.run(_download(releases(group), mirror, checksums, out, show))

    if not done.exists():
        make_once(group, done, f"Downloading {', '.join(group.programs)}", make)
    return done


async def _download(wanted: dict[str, Release], mirror: str, checksums: Checksums, out: Path, show: Show) -> None:
    async with _session() as http:
        for number, (program, release) in enumerate(wanted.items(), 1):
            archive = out.with_name(release.file)
            address = _at(mirror, release.url)
            found = await _body(http, address, archive, f"{program} ({number} of {len(wanted)})", show)
            if found != checksums[release.url]:
                raise ToolchainError(
                    f"{address} is not what was published: its SHA-256 is {found}, and "
                    f"{_at(mirror, release.checksum)} states {checksums[release.url]}. Nothing of it is kept."
                )
            if release.member:
                _extract(archive, release.member, out / program)
            else:
                archive.rename(out / program)
            (out / program).chmod(0o755)


def _extract(archive: Path, member: str, target: Path) -> None:
    try:
        with tarfile.open(archive) as files, target.open("wb") as file:
            source = files.extractfile(member)
            if source is None:
                raise KeyError(member)
            shutil.copyfileobj(source, file)
    except (KeyError, tarfile.TarError) as error:
        raise ToolchainError(f"The archive {archive.name} does not hold {member}: {error}.") from error
    archive.unlink()


def _session() -> aiohttp.ClientSession:
    # trust_env: a download goes by the proxy that the environment names, as pip's and Go's do.
    return aiohttp.ClientSession(timeout=BODY_LIMIT, trust_env=True, raise_for_status=_raise_for_status)


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status >= 500:
        response.raise_for_status()
    if response.status != 200:
        raise ToolchainError(f"{response.request_info.real_url} cannot be had: {response.status} {response.reason}.")


async def _text(http: aiohttp.ClientSession, address: str) -> str:
    async def get() -> str:
        async with http.get(address) as response:
            return await response.text(errors="replace")

    return await _tried(get, address)


async def _body(http: aiohttp.ClientSession, address: str, target: Path, title: str, show: Show) -> str:
    """Into `target`; returns its SHA-256."""

    async def get() -> str:
        sha, size = hashlib.sha256(), 0
        async with http.get(address) as response, await anyio.open_file(target, "wb") as file:
            async for chunk in response.content.iter_chunked(CHUNK):
                sha.update(chunk)
                await file.write(chunk)
                size += len(chunk)
                show(f"{title}, {size / 1e6:.0f} of {(response.content_length or size) / 1e6:.0f} MB")
        return sha.hexdigest()

    return await _tried(get, address)


async def _tried(get: Callable[[], Coroutine[Any, Any, str]], address: str) -> str:
    attempt = 1
    while True:
        try:
            return await get()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if attempt == TRIES:
                raise ToolchainError(f"{address} cannot be had: {str(error) or type(error).__name__}.") from error
        await asyncio.sleep(PAUSE.total_seconds() * attempt)
        attempt += 1


def _at(mirror: str, url: str) -> str:
    return f"{mirror.rstrip('/')}/{url.removeprefix('https://')}" if mirror else url
