"""Which way the toolchain comes: `auto`, or a folder."""

from datetime import timedelta
from pathlib import Path

import pytest

from clusters.local import toolchain
from clusters.local.toolchain import GROUPS, ToolchainError, find_toolchain
from tests.unit.toolchain.conftest import GROUP, RELEASED, FakeGo, Mirror, contents, program, send
from tests.unit.toolchain.test_upstream import truncated

VERSIONED = '#!/bin/sh\ncase "$1" in --version | version) echo "this is version v{version}" ;; *) exit 1 ;; esac\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a program of the pinned version for each there must be."""
    folder = tmp_path / "my programs"
    folder.mkdir()
    for group in GROUPS:
        for name in group.programs:
            put(folder / name, group.version(name))
    return folder


def put(path: Path, version: str) -> None:
    path.write_text(VERSIONED.format(version=version))
    path.chmod(0o755)


def test_a_folder_that_has_all_programs_is_a_toolchain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_toolchain(str(folder), folder / "unused")
    assert found.program("etcd") == folder / "etcd"
    assert capsys.readouterr().out == f" ✓ Toolchain: the programs in {folder}\n"
    with pytest.raises(ToolchainError, match="The program virtctl is not in"):
        found.program("virtctl")


def test_a_folder_that_lacks_programs_names_them(folder: Path) -> None:
    (folder / "etcd").unlink()
    (folder / "temporal").chmod(0o644)
    with pytest.raises(ToolchainError, match=r"lacks etcd, temporal\. It must hold all of etcd, kube-apiserver"):
        find_toolchain(str(folder), folder / "unused")


def test_a_word_that_is_no_way_is_taken_for_a_folder_and_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"The toolchain folder upstrem lacks .* say TOOLCHAIN=auto"):
        find_toolchain("upstrem", tmp_path)


def test_another_patch_of_a_version_is_fine_and_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder / "kube-scheduler", "1.36.99")
    find_toolchain(str(folder), folder / "unused")
    pinned = GROUPS[0].version("kube-scheduler")
    assert (
        f"! Toolchain: the programs in {folder}: not the pinned patches, but kube-scheduler 1.36.99 (for {pinned})"
        in (capsys.readouterr().out)
    )


def test_another_minor_version_is_refused_by_name(folder: Path) -> None:
    put(folder / "kube-scheduler", "1.36.99")
    put(folder / "kubectl", "1.35.0")
    put(folder / "etcd", "3.5.21")
    with pytest.raises(
        ToolchainError, match=r"holds etcd 3\.5\.21 \(for .*\), kubectl 1\.35\.0 \(for [0-9.]+\)\. Other minor"
    ):
        find_toolchain(str(folder), folder / "unused")


def test_a_program_that_does_not_say_its_version_is_taken_as_it_is(folder: Path) -> None:
    put(folder / "temporal", "0.0.0-DEV")
    (folder / "metrics-server").write_text("#!/bin/sh\nexit 3\n")
    assert find_toolchain(str(folder), folder / "unused").program("temporal").exists()


def test_a_program_of_another_machine_is_refused(folder: Path) -> None:
    (folder / "kwok").write_bytes(b"\x7fELF of another architecture")
    with pytest.raises(ToolchainError, match=r"kwok does not run here: .*Exec format error"):
        find_toolchain(str(folder), folder / "unused")


@pytest.mark.usefixtures("module", "go")
@pytest.mark.parametrize("way", ["compiled", "downloaded"])
def test_auto_takes_what_the_cache_holds(way: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = {"compiled": GROUP.built, "downloaded": GROUP.downloaded}[way](cache / "toolchain")
    done.mkdir(parents=True)
    assert find_toolchain("auto", cache, "http://mirror.invalid").folders == (done,)
    assert capsys.readouterr().out == f" ✓ Toolchain: {way} earlier, in {cache / 'toolchain'}\n"


def test_auto_downloads_when_upstream_answers(
    cache: Path, mirror: Mirror, go: FakeGo, capsys: pytest.CaptureFixture[str]
) -> None:
    found = find_toolchain("auto", cache, mirror.url)
    assert found.folders == (RELEASED.downloaded(cache / "toolchain"),)
    assert found.program("etcd").read_bytes() == program("etcd")
    assert "✓ Toolchain: upstream answers, so it is downloaded into" in capsys.readouterr().out
    assert go.calls() == []


def test_auto_builds_when_upstream_does_not_answer(
    cache: Path, mirror: Mirror, go: FakeGo, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.files.clear()
    found = find_toolchain("auto", cache, mirror.url)
    assert found.folders == (RELEASED.built(cache / "toolchain"),)
    assert "! Toolchain: it is compiled, once, because it cannot be downloaded: http" in capsys.readouterr().out
    assert go.calls() == ["version", "list", "build"]


def test_auto_builds_when_upstream_never_answers(
    cache: Path, mirror: Mirror, go: FakeGo, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "IMPATIENCE", timedelta(seconds=0.5))
    mirror.fails("SHA256SUMS", mirror.hang)
    assert find_toolchain("auto", cache, mirror.url).folders == (RELEASED.built(cache / "toolchain"),)
    assert "did not answer within" in capsys.readouterr().out
    assert "build" in go.calls()


def test_auto_builds_when_a_download_fails_in_the_middle(
    cache: Path, mirror: Mirror, go: FakeGo, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.fails("/metrics-server-linux-amd64", truncated)
    found = find_toolchain("auto", cache, mirror.url)
    assert found.folders == (RELEASED.built(cache / "toolchain"),)
    assert contents(cache) == {f"things-{RELEASED.digest()}", "things.lock"}
    said = capsys.readouterr().out
    assert "✗ Downloading" in said
    assert "! Toolchain: it is compiled, once, because it cannot be downloaded: http" in said
    assert "build" in go.calls()


def test_auto_keeps_the_group_that_was_downloaded_and_builds_the_other(
    cache: Path, mirror: Mirror, go: FakeGo, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = toolchain.Group("things", {"etcd": "go.etcd.io/etcd/server/v3"})
    second = toolchain.Group("things", {"temporal": "github.com/temporalio/cli"}, ldflags="-s")
    monkeypatch.setattr(toolchain, "GROUPS", (first, second))
    mirror.fails("_linux_amd64.tar.gz", lambda request: send(request, 404, b""))
    found = find_toolchain("auto", cache, mirror.url)
    assert found.folders == (first.downloaded(cache / "toolchain"), second.built(cache / "toolchain"))
    assert go.calls().count("build") == 1


def test_upstream_does_not_take_what_was_compiled(cache: Path, mirror: Mirror) -> None:
    RELEASED.built(cache / "toolchain").mkdir(parents=True)
    assert find_toolchain("upstream", cache, mirror.url).folders == (RELEASED.downloaded(cache / "toolchain"),)
