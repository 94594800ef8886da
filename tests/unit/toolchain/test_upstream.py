"""Downloads, from a mirror on this machine that holds what the official addresses publish, and can fail."""

import json
import os
import platform
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.local import toolchain
from clusters.local.toolchain import Group, ToolchainError, find_toolchain, upstream
from clusters.local.toolchain.groups import GROUPS
from clusters.local.toolchain.upstream import fetch_checksums, releases, sha256_in_lines, sha256_in_release
from tests.unit.toolchain.conftest import (
    LIMIT,
    RELEASED,
    Mirror,
    contents,
    find_in_another_process,
    program,
    send,
    sha256,
    tar_gz,
    wait_until,
    waits_for_lock,
)

DONE = "things-upstream-"


def download(cache: Path, mirror: Mirror) -> toolchain.Toolchain:
    return find_toolchain("upstream", cache, mirror.url)


def assert_nothing_is_left(cache: Path) -> None:
    assert contents(cache) == {"things.lock"}


@pytest.mark.parametrize("mirror", ["x86_64", "aarch64"], indirect=True)
def test_every_program_is_downloaded_once(cache: Path, mirror: Mirror) -> None:
    found = download(cache, mirror)
    for name in RELEASED.programs:
        assert found.program(name).read_bytes() == program(name)
        assert os.access(found.program(name), os.X_OK)
    assert contents(cache) == {f"{DONE}{RELEASED.digest()}", "things.lock"}
    assert {path.name for path in found.folders[0].iterdir()} == set(RELEASED.programs)
    assert sorted(mirror.asked) == sorted(mirror.files)
    assert download(cache, mirror) == found
    assert len(mirror.asked) == len(mirror.files)


def test_the_real_pins_have_a_release_each() -> None:
    found = {program: release.url for group in GROUPS for program, release in releases(group).items()}
    assert set(found) == {program for group in GROUPS for program in group.programs}
    for group in GROUPS:
        for name in group.programs:
            assert f"/v{group.version(name)}/" in found[name]


@pytest.mark.parametrize("end", ["/kube-apiserver", "64.tar.gz", "/kwok-linux-amd64"])
def test_what_is_not_what_was_published_is_refused(cache: Path, mirror: Mirror, end: str) -> None:
    path = next(path for path in mirror.files if path.endswith(end))
    mirror.files[path] = tar_gz("another", b"bad")
    with pytest.raises(ToolchainError, match=r"is not what was published: its SHA-256 is [0-9a-f]{64}") as caught:
        download(cache, mirror)
    assert str(caught.value).startswith(f"The toolchain cannot be downloaded: {mirror.url}/{path} is not what")
    assert "Nothing of it is kept. Type the command again, name another mirror in VIRTFLOW_MIRROR, or" in (
        str(caught.value)
    )
    assert_nothing_is_left(cache)
    assert mirror.asked.count(path) == 1


def no_digest(text: bytes) -> bytes:
    release = json.loads(text)
    for asset in release["assets"]:
        asset["digest"] = None
    return json.dumps(release).encode()


@pytest.mark.parametrize(
    ("end", "change"),
    [
        ("SHA256SUMS", lambda text: text.replace(b"amd64", b"riscv64")),
        ("kube-apiserver.sha256", lambda _: b"<html>Please log in</html>"),
        ("checksums.txt", lambda _: b""),
        ("kwok/releases/tags/v0.8.1", no_digest),
        ("kwok/releases/tags/v0.8.1", lambda _: b'{"message": "API rate limit exceeded"}'),
    ],
)
def test_without_a_checksum_nothing_at_all_is_downloaded(
    cache: Path, mirror: Mirror, end: str, change: Callable[[bytes], bytes]
) -> None:
    mirror.files[mirror.path(end)] = change(mirror.files[mirror.path(end)])
    with pytest.raises(ToolchainError, match=rf"{end} states no SHA-256 of .*linux.amd64|of kube-apiserver, and"):
        download(cache, mirror)
    assert not cache.exists()
    assert not [path for path in mirror.asked if path.endswith(("amd64", ".gz", "/kube-apiserver"))]


def truncated(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, b"#!/bin/sh", Content_Length="5000")


def unavailable(request: BaseHTTPRequestHandler) -> None:
    send(request, 503, b"try later")


def cut(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("fault", [truncated, unavailable, cut])
@pytest.mark.parametrize("end", ["/kwok-linux-amd64", "SHA256SUMS"])
def test_a_passing_failure_is_tried_again(
    cache: Path, mirror: Mirror, end: str, fault: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    mirror.fails(end, fault, times=2)
    assert download(cache, mirror).program("kwok").read_bytes() == program("kwok")
    assert mirror.asked.count(mirror.path(end)) == 3


@pytest.mark.parametrize("fault", [truncated, unavailable, cut])
def test_a_lasting_failure_is_tried_three_times_and_leaves_nothing(
    cache: Path, mirror: Mirror, fault: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    mirror.fails("/kwok-linux-amd64", fault)
    with pytest.raises(ToolchainError, match=r"/kwok-linux-amd64 cannot be had: \S+"):
        download(cache, mirror)
    assert_nothing_is_left(cache)
    # aiohttp itself asks once more on a connection that it kept and that was cut.
    assert mirror.asked.count(mirror.path("/kwok-linux-amd64")) == (6 if fault is cut else 3)


@pytest.mark.parametrize("end", ["/metrics-server-linux-amd64", "checksums.txt"])
def test_what_the_mirror_does_not_have_is_named_and_not_asked_for_again(
    cache: Path, mirror: Mirror, end: str
) -> None:
    path = mirror.path(end)
    del mirror.files[path]
    with pytest.raises(ToolchainError, match=f"{mirror.url}/{path} cannot be had: 404 Not Found"):
        download(cache, mirror)
    assert mirror.asked.count(path) == 1
    assert not cache.exists() or contents(cache) == {"things.lock"}


def test_a_body_that_hangs_is_given_up(cache: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "BODY_LIMIT", aiohttp.ClientTimeout(sock_read=0.1))
    mirror.fails("/kwok-linux-amd64", mirror.hang)
    with pytest.raises(ToolchainError, match=r"/kwok-linux-amd64 cannot be had: Timeout"):
        download(cache, mirror)
    assert_nothing_is_left(cache)


def test_checksums_that_hang_are_given_up(mirror: Mirror) -> None:
    mirror.fails("SHA256SUMS", mirror.hang)
    with pytest.raises(ToolchainError, match=f"{mirror.url} did not answer within 1 s"):
        fetch_checksums([RELEASED], mirror.url, timedelta(seconds=1))
    assert not mirror.released.is_set()


@pytest.fixture
def silent_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Name servers that never answer: the resolver cannot be cancelled."""
    answered, was_waited_for = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> None:
        if not answered.wait(LIMIT):
            was_waited_for.set()
        raise socket.gaierror("too late")

    before = set(threading.enumerate())
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", getaddrinfo)
        yield was_waited_for
        answered.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(LIMIT)


@pytest.mark.usefixtures("released")
def test_a_resolver_that_hangs_is_left_behind(silent_resolver: threading.Event) -> None:
    with pytest.raises(ToolchainError, match=r"^dl\.k8s\.io and github\.com did not answer within 0 s"):
        fetch_checksums([RELEASED], "", timedelta(milliseconds=100))
    assert not silent_resolver.is_set()


@pytest.mark.usefixtures("released")
def test_a_name_that_nobody_knows_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream, "PAUSE", timedelta())
    with pytest.raises(ToolchainError, match=r"cannot be had: Cannot connect to host mirror\.invalid"):
        fetch_checksums([RELEASED], "http://mirror.invalid", timedelta(seconds=LIMIT))


def test_a_redirect_is_followed(cache: Path, mirror: Mirror) -> None:
    def elsewhere(request: BaseHTTPRequestHandler) -> None:
        send(request, 302, b"", Location=request.path.replace("/a/mirror/", "/a/mirror/elsewhere/"))

    for end in ("/kwok-linux-amd64", "SHA256SUMS"):
        path = mirror.path(end)
        mirror.fails(end, elsewhere)
        mirror.files[f"elsewhere/{path}"] = mirror.files[path]
    assert download(cache, mirror).program("kwok").read_bytes() == program("kwok")


def test_a_redirect_in_a_circle_ends(cache: Path, mirror: Mirror) -> None:
    location = f"{mirror.url}/{mirror.path('/kwok-linux-amd64')}"
    mirror.fails("/kwok-linux-amd64", lambda request: send(request, 302, b"", Location=location))
    with pytest.raises(ToolchainError, match="/kwok-linux-amd64 cannot be had"):
        download(cache, mirror)
    assert_nothing_is_left(cache)


def test_an_archive_without_the_program_is_an_error(cache: Path, mirror: Mirror) -> None:
    folder = "github.com/temporalio/cli/releases/download/v1.5.7"
    archive = tar_gz("temporal.exe", b"")
    mirror.files[f"{folder}/temporal_cli_1.5.7_linux_amd64.tar.gz"] = archive
    text = f"{sha256(archive)} *temporal_cli_1.5.7_linux_amd64.tar.gz"
    mirror.files[f"{folder}/checksums.txt"] = text.encode()
    with pytest.raises(ToolchainError, match=r"temporal_cli_1\.5\.7_linux_amd64\.tar\.gz does not hold temporal"):
        download(cache, mirror)
    assert_nothing_is_left(cache)


def test_a_full_disk_is_named_with_the_way_out(cache: Path, mirror: Mirror) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ToolchainError, match=r"cannot be written into .*File too large.*VIRTFLOW_CACHE_HOME"):
            download(cache, mirror)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_nothing_is_left(cache)


def test_a_download_goes_by_the_proxy_of_the_environment(
    cache: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{mirror.server.server_port}")
    monkeypatch.setenv("no_proxy", "")
    found = find_toolchain("upstream", cache, "http://mirror.invalid/a/mirror/")
    assert found.program("etcd").read_bytes() == program("etcd")


def test_two_downloads_at_the_same_time_do_the_work_once(cache: Path, mirror: Mirror) -> None:
    path = mirror.path("/kube-apiserver")

    def wait_and_send(request: BaseHTTPRequestHandler) -> None:
        mirror.hang(request)
        send(request, 200, mirror.files[path])

    mirror.fails("/kube-apiserver", wait_and_send)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(download, cache, mirror)
        wait_until(lambda: path in mirror.asked)
        second = pool.submit(download, cache, mirror)
        wait_until(lambda: waits_for_lock(cache / "toolchain" / "things.lock"))
        mirror.released.set()
        assert first.result(LIMIT) == second.result(LIMIT)
    assert mirror.asked.count(path) == 1


def test_a_download_killed_in_the_middle_leaves_nothing_that_counts(
    cache: Path, mirror: Mirror, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    if platform.machine() != "x86_64":
        pytest.skip("the other process sees the machine as it is")
    mirror.fails("/metrics-server-linux-amd64", mirror.hang, times=1)
    killed = find_in_another_process(module, cache, mirror.url)
    wait_until(lambda: mirror.path("/metrics-server-linux-amd64") in mirror.asked)
    killed.kill()
    assert killed.wait(LIMIT) == -9
    assert [name for name in contents(cache) if name.startswith(".things-")]
    assert not [name for name in contents(cache) if name.startswith(DONE)]
    again = find_in_another_process(module, cache, mirror.url)
    assert again.wait(LIMIT) == 0
    assert {name[: len(DONE)] for name in contents(cache)} == {DONE, "things.lock"}


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(("system", "machine"), [("Linux", "riscv64"), ("Darwin", "arm64")])
def test_a_platform_without_releases_is_refused(monkeypatch: pytest.MonkeyPatch, system: str, machine: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(ToolchainError, match=f"this is {system} on {machine}"):
        releases(RELEASED)


def test_a_program_that_is_not_pinned_is_an_error(released: Group) -> None:
    (released.module / "go.mod").write_text("module x\n\nrequire k8s.io/kubernetes/staging v1.0.0\n")
    with pytest.raises(ToolchainError, match=r"does not pin k8s\.io/kubernetes"):
        released.version("kube-apiserver")


@given(st.text(), st.text())
def test_no_text_makes_a_checksum_of_what_is_none(text: str, file: str) -> None:
    for read in (sha256_in_lines, sha256_in_release):
        found = read(text, file)
        assert found is None or (len(found) == 64 and found in text.lower())


NAMES = st.text(st.characters(categories=["L", "N"], include_characters=".-_"), min_size=1)
SUMS = st.text("0123456789abcdefABCDEF", min_size=64, max_size=64)


@given(st.dictionaries(NAMES, SUMS, min_size=1), st.sampled_from(["  ", " *"]), st.data())
def test_a_files_own_checksum_is_found_among_others(sums: dict[str, str], mark: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(sums)))
    lines = "\n".join(f"{sum_}{mark}{name}" for name, sum_ in sums.items())
    assert sha256_in_lines(lines, file) == sums[file].lower()
    release = {"assets": [{"name": name, "digest": f"sha256:{sum_}"} for name, sum_ in sums.items()]}
    assert sha256_in_release(json.dumps(release), file) == sums[file].lower()
    assert sha256_in_lines(lines, "of another") is None
    assert sha256_in_release(json.dumps(release), "of another") is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["assets", "name", "digest"]), inner),
    )
)
def test_a_release_of_any_shape_is_read_without_an_error(document: object) -> None:
    assert sha256_in_release(json.dumps(document), "kwok-linux-amd64") is None
