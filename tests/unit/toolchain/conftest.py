"""A toolchain of one small group, and who plays the programs that make it."""

import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clusters.local import toolchain
from clusters.local.toolchain import Group, groups, upstream

MODULES = {"hello": "virtflow.test/hello", "world": "virtflow.test/world"}
GROUP = Group("things", MODULES, renames=(("server", "world"),))
LIMIT = 30
ROOT = Path(__file__).parents[3]

# A script's first lines, for the shell and for Python: a #! line alone cannot name a program whose path has a space.
INTERPRETER = f"""#!/bin/sh
'''exec' "{sys.executable}" "$0" "$@"
'''"""

# Plays go: what it is asked is kept beside it, and a test puts what it shall do at `build` into its place.
FAKE_GO = """\
    {interpreter}
    import pathlib, sys, time
    here = pathlib.Path(__file__).parent
    with (here / "calls").open("a") as calls:
        print(*sys.argv[1:2], file=calls)
    match sys.argv[1]:
        case "version":
            print("go version go{version} linux/amd64")
        case "list":
            print("a\\nb\\nc")
        case "build":
            out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
            (out / "hello").touch()
    {build}
            (out / "server").touch()
"""


class FakeGo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, *, version: str = "1.99.0", build: str = "pass") -> None:
        script = self.folder / "go"
        text = textwrap.dedent(FAKE_GO).format(
            interpreter=INTERPRETER, version=version, build=textwrap.indent(textwrap.dedent(build), " " * 8)
        )
        script.write_text(text)
        script.chmod(0o755)

    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        return calls.read_text().split() if calls.exists() else []


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    fake = FakeGo(tmp_path / "fake go")
    fake.write()
    monkeypatch.setenv("PATH", str(fake.folder), prepend=os.pathsep)
    return fake


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of GROUP, which is the only one."""
    folder = tmp_path / "modules" / GROUP.name
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module virtflow.test/things\n\ngo 1.26\n")
    (folder / "go.sum").write_text("")
    monkeypatch.setattr(groups, "HERE", folder.parent)
    monkeypatch.setattr(toolchain, "GROUPS", (GROUP,))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "a cache"


def contents(cache: Path) -> set[str]:
    return {path.name for path in (cache / "toolchain").iterdir()}


ELSEWHERE = """
import pathlib, sys
from clusters.local import toolchain
from clusters.local.toolchain import groups
from tests.unit.toolchain.conftest import {group}
groups.HERE = pathlib.Path(sys.argv[1])
toolchain.GROUPS = ({group},)
toolchain.find_toolchain(sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4])
"""


def find_in_another_process(module: Path, cache: Path, mirror: str = "") -> subprocess.Popen[bytes]:
    """Somebody else who builds GROUP, or downloads RELEASED from the mirror."""
    script = ELSEWHERE.format(group="RELEASED" if mirror else "GROUP")
    arguments = [module.parent, "upstream" if mirror else "build", cache, mirror]
    return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)


def waits_for_lock(lock: Path) -> bool:
    """Whether somebody waits for this lock: the kernel lists it with an arrow."""
    inode = str(lock.stat().st_ino) if lock.exists() else "none"
    return any("->" in line and f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# As the real groups: a program of each origin.
RELEASED = Group(
    "things",
    {
        "kube-apiserver": "k8s.io/kubernetes",
        "etcd": "go.etcd.io/etcd/server/v3",
        "kwok": "sigs.k8s.io/kwok",
        "metrics-server": "sigs.k8s.io/metrics-server",
        "temporal": "github.com/temporalio/cli",
    },
)
PINS = """\
module virtflow.test/things

go 1.26

replace k8s.io/kubernetes/staging => k8s.io/kubernetes v9.9.9

require (
	go.etcd.io/etcd/server/v3 v3.4.5 // indirect
	k8s.io/kubernetes v1.2.3 // indirect
	sigs.k8s.io/kwok v0.8.1 // indirect
	sigs.k8s.io/metrics-server v0.9.2 // indirect
)

require github.com/temporalio/cli v1.5.7 // indirect
"""


@pytest.fixture
def released(module: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    (module / "go.mod").write_text(PINS)
    monkeypatch.setattr(toolchain, "GROUPS", (RELEASED,))
    return RELEASED


class Mirror:
    """A mirror on this machine, as `wget --mirror` makes it. `faults` says what a path does instead of answering,
    and how many times; `asked` is every request it got."""

    def __init__(self, arch: str) -> None:
        self.asked: list[str] = []
        self.faults: dict[str, tuple[int, Callable[[BaseHTTPRequestHandler], None]]] = {}
        self.files = dict(published(arch))
        self.released = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.answer(self)

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/a/mirror"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.rpartition("/a/mirror/")[2]
        self.asked.append(path)
        times, fault = self.faults.get(path, (0, None))
        if fault and times:
            self.faults[path] = (times - 1, fault)
            fault(request)
        elif path in self.files:
            send(request, 200, self.files[path])
        else:
            send(request, 404, b"no such file")

    def path(self, end: str) -> str:
        [path] = [path for path in self.files if path.endswith(end)]
        return path

    def fails(self, end: str, fault: Callable[[BaseHTTPRequestHandler], None], times: int = 99) -> None:
        self.faults[self.path(end)] = (times, fault)

    def hang(self, _: BaseHTTPRequestHandler) -> None:
        assert self.released.wait(LIMIT)

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def program(name: str) -> bytes:
    return f"#!/bin/sh\necho {name}\n".encode() * 1000


def published(arch: str) -> Iterator[tuple[str, bytes]]:
    """The official files, each under its host and path."""
    path = f"dl.k8s.io/release/v1.2.3/bin/linux/{arch}/kube-apiserver"
    yield path, program("kube-apiserver")
    yield f"{path}.sha256", sha256(program("kube-apiserver")).encode()

    folder = "github.com/etcd-io/etcd/releases/download/v3.4.5"
    archive = tar_gz(f"etcd-v3.4.5-linux-{arch}/etcd", program("etcd"))
    yield f"{folder}/etcd-v3.4.5-linux-{arch}.tar.gz", archive
    sums = f"{'0' * 64}  etcd-v3.4.5-linux-s390x.tar.gz\n{sha256(archive)}  etcd-v3.4.5-linux-{arch}.tar.gz\n"
    yield f"{folder}/SHA256SUMS", sums.encode()

    folder = "github.com/temporalio/cli/releases/download/v1.5.7"
    archive = tar_gz("temporal", program("temporal"))
    yield f"{folder}/temporal_cli_1.5.7_linux_{arch}.tar.gz", archive
    yield f"{folder}/checksums.txt", f"{sha256(archive)}  temporal_cli_1.5.7_linux_{arch}.tar.gz\n".encode()

    for name, version in (("kwok", "v0.8.1"), ("metrics-server", "v0.9.2")):
        file = f"{name}-linux-{arch}"
        yield f"github.com/kubernetes-sigs/{name}/releases/download/{version}/{file}", program(name)
        assets = [
            {"name": f"{name}.yaml", "digest": None},
            {"name": file, "digest": f"sha256:{sha256(program(name))}"},
        ]
        path = f"api.github.com/repos/kubernetes-sigs/{name}/releases/tags/{version}"
        yield path, json.dumps({"tag_name": version, "assets": assets}).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tar_gz(member: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(params=["x86_64"])
def mirror(request: pytest.FixtureRequest, released: Group, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(platform, "machine", lambda: request.param)
    monkeypatch.setattr(upstream, "PAUSE", timedelta())
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    assert released.module.exists()
    mirror = Mirror({"x86_64": "amd64", "aarch64": "arm64"}[request.param])
    yield mirror
    mirror.close()
