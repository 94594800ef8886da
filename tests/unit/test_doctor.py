"""`virtflow doctor` on machines where something is missing: in a process made to lack it, where that can be."""

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.local import ports
from clusters.local.toolchain import GROUPS
from virtflow import doctor
from virtflow.doctor import Finding, diagnose
from virtflow.settings import Settings

ROOT = Path(__file__).parents[2]
NOWHERE = "http://127.0.0.1:1"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Where a machine's state and cache are; the toolchain is in the cache."""
    home = tmp_path / "home"
    for group in GROUPS:
        group.built(home / "cache" / "toolchain").mkdir(parents=True)
    (home / "state").mkdir()
    before = sorted(home.rglob("*"))
    yield home
    # It changes nothing.
    assert sorted(home.rglob("*")) == before


def run(home: Path, *options: str, **environment: str) -> tuple[int, list[str]]:
    """The exit code and the lines of a doctor in another process; the options are Python's."""
    own = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("VIRTFLOW_") and key.lower() not in PROXIES
    }
    paths = {"VIRTFLOW_STATE_HOME": str(home / "state"), "VIRTFLOW_CACHE_HOME": str(home / "cache")}
    plain = {"COLUMNS": "400", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1", "VIRTFLOW_MIRROR": NOWHERE}
    command = [sys.executable, *options, "-m", "virtflow.doctor"]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
        env=own | plain | paths | environment,
    )
    assert result.stderr == ""
    return result.returncode, result.stdout.splitlines()


def run_check(name: str, *prefix: str, **environment: str) -> list[str]:
    """The lines of one check, in a process that is started by `prefix`."""
    script = f"from virtflow import doctor\nfor found in doctor.check_{name}(): print(found.mark, found.text)"
    own = {key: value for key, value in os.environ.items() if key.lower() not in PROXIES}
    result = subprocess.run(
        [*prefix, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=ROOT,
        env=own | environment,
    )
    return result.stdout.splitlines()


def settings(home: Path, **fields: str) -> Settings:
    return Settings(**{"state_home": home / "state", "cache_home": home / "other", "mirror": NOWHERE} | fields)  # type: ignore[arg-type]


def namespace(*kinds: str) -> tuple[str, ...]:
    """A prefix that starts a program in namespaces of its own, as root of them."""
    prefix = ("unshare", "--map-root-user", *kinds)
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this machine does not let a user make namespaces")
    return prefix


def test_every_check_has_its_line_and_the_exit_code_follows_them(home: Path) -> None:
    code, lines = run(home)
    names = ["System", "Python", "make", "Cores", "Memory", "Open files", "inotify", "Loopback", "Packages"]
    assert [found[3:].partition(":")[0] for found in lines] == [*names, "State", "Ports", "Toolchain"]
    assert code == (3 if any(found.startswith(" ✗") for found in lines) else 0)


def test_the_command_line_has_it_too(home: Path) -> None:
    env = {**os.environ, "VIRTFLOW_STATE_HOME": str(home / "state"), "VIRTFLOW_CACHE_HOME": str(home / "cache")}
    env |= {"VIRTFLOW_NODES": "0", "NO_COLOR": "1", "COLUMNS": "400"}
    command = [sys.executable, "-m", "virtflow", "doctor"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=env)
    assert result.returncode == 3
    assert " ✗ Settings: " in result.stdout


def test_without_packages_it_says_how_to_get_them(home: Path) -> None:
    # -S: as a Python that nobody has installed anything for.
    code, lines = run(home, "-S")
    assert code == 0
    assert "outside of a virtual environment" in lines[1]
    assert lines[-1].startswith(" ! Packages: No module named ")
    assert "`make up` installs them" in lines[-1]


def test_a_setting_that_cannot_be_is_essential(home: Path) -> None:
    code, lines = run(home, VIRTFLOW_CLUSTER="../elsewhere")
    assert code == 3
    assert lines[-1].startswith(" ✗ Settings: VIRTFLOW_CLUSTER is ")


def test_few_open_files_are_essential() -> None:
    [found] = run_check("descriptors", "sh", "-c", 'ulimit -n 512; exec "$@"', "sh")
    assert found.startswith("✗ Open files: 512 are allowed; `ulimit -Hn` must be 1024 or more")
    [found] = run_check("descriptors", "sh", "-c", 'ulimit -n 1024; exec "$@"', "sh")
    assert found.startswith("✓")


@pytest.mark.parametrize(("instances", "mark"), [(7, "✗"), (8, "✓")])
def test_few_inotify_instances_are_essential(instances: int, mark: str) -> None:
    few = f'echo {instances} > /proc/sys/user/max_inotify_instances; exec "$@"'
    [found] = run_check("inotify", *namespace("--user"), "sh", "-c", few, "sh")
    assert found.startswith(f"{mark} inotify: ")


def test_a_machine_without_loopback() -> None:
    [found] = run_check("loopback", *namespace("--net"))
    assert found.startswith("✗ Loopback: 127.0.0.1 does not work: ")


def test_a_localhost_that_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", ("10.0.0.7", 80))])
    [found] = doctor.check_loopback()
    assert (found.mark, found.text.partition(". ")[0]) == ("✗", "Loopback: localhost is not 127.0.0.1")


def test_a_folder_on_a_read_only_disk(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from virtflow.doctor import check_folder
print(check_folder("State", Path("{tmp_path}"), 0, "VIRTFLOW_STATE_HOME").text)
"""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    command = [*namespace("--mount"), "sh", "-c", mount, str(tmp_path), sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert result.stdout == (
        f"State: {tmp_path} cannot be written. Make it a writable folder, or set VIRTFLOW_STATE_HOME.\n"
    )


def test_a_folder_that_is_a_file() -> None:
    wrong = Settings(state_home=Path("/dev/null/state"), cache_home=Path("/dev/null"))
    [found] = doctor.check_state(wrong)
    assert (found.mark, found.text.partition(".")[0]) == ("✗", "State: /dev/null cannot be written")
    [found] = doctor.check_cache(wrong)
    assert (found.mark, found.text.partition(".")[0]) == ("✗", "Cache: /dev/null cannot be written")


def test_a_disk_without_room(tmp_path: Path) -> None:
    found = doctor.check_folder("State", tmp_path / "not" / "yet", float("inf"), "VIRTFLOW_STATE_HOME")
    assert found.mark == "✗"
    assert "needed. Make room, or set VIRTFLOW_STATE_HOME" in found.text
    assert doctor.check_folder("State", tmp_path / "not" / "yet", 0, "VIRTFLOW_STATE_HOME").mark == "✓"


def test_a_state_path_that_is_too_long_for_a_socket() -> None:
    home = Path(f"/tmp/{'x' * 80}")
    over = len(f"{home}/local/supervisor.sock") - 98
    assert Finding(
        "✗", f"State: the path {home} is {over} bytes too long for a Unix socket. Set VIRTFLOW_STATE_HOME."
    ) in list(doctor.check_state(Settings(cluster="local", state_home=home)))


def test_ports_that_are_all_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "RANGE", range(20_000, 20_000 + doctor.PORTS - 1))
    assert [finding.mark for finding in doctor.check_ports(Settings())] == ["✗"]


def test_nothing_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    [found] = doctor.check_make()
    assert (found.mark, found.text.partition(".")[0]) == ("!", "make: not on PATH")
    found = doctor.check_go()
    assert (found.mark, found.text.partition(": ")[2].partition(":")[0]) == (
        "!",
        "none on PATH, not 1.26.4 or newer",
    )


def test_a_go_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "go").write_text("#!/bin/sh\necho go version go1.22.1 linux/amd64\n")
    (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = doctor.check_go()
    assert found.mark == "!"
    assert found.text.startswith(f"Go: {tmp_path / 'go'}, not 1.26.4 or newer")


@pytest.mark.parametrize(
    ("choice", "mark", "words"),
    [
        ("auto", "!", "it will be compiled, once, in about 12 minutes, because it cannot be downloaded: http"),
        ("build", "!", "it will be compiled, once, in about 12 minutes, as TOOLCHAIN=build says"),
        ("upstream", "✗", "it cannot be downloaded: http://127.0.0.1:1/"),
        ("/nonexistent", "✗", "The toolchain folder /nonexistent lacks etcd, "),
    ],
)
def test_which_way_the_toolchain_would_come(home: Path, choice: str, mark: str, words: str) -> None:
    first, *_ = doctor.check_toolchain(settings(home, toolchain=choice))
    assert first.mark == mark
    assert first.text.startswith(f"Toolchain: {words}")


def test_a_toolchain_in_the_cache_that_the_setting_does_not_want(home: Path) -> None:
    [found] = doctor.check_toolchain(settings(home, cache_home=str(home / "cache"), toolchain="auto"))
    assert found == Finding("✓", f"Toolchain: it is in {home / 'cache' / 'toolchain'}")
    [found] = doctor.check_toolchain(settings(home, cache_home=str(home / "cache"), toolchain="upstream"))
    assert found.mark == "✗"


def test_a_cluster_that_was_left_behind(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "supervisord.conf").write_text("[program:etcd]\ncommand=etcd\n")
    (tmp_path / "something else").mkdir()
    [found] = doctor.check_clusters(Settings(state_home=tmp_path))
    assert found.mark == "!"
    assert found.text.startswith("Cluster mine: 0 of ")
    assert "`make down CLUSTER=mine` removes it." in found.text


@pytest.mark.parametrize(
    ("max_", "mark"), [("max 100000", "✓"), ("400000 100000", "✓"), ("150000 100000", "!"), ("", "✓")]
)
def test_a_container_has_the_cores_of_its_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_: str, mark: str
) -> None:
    (tmp_path / "cpu.max").write_text(f"{max_}\n")
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert [finding.mark for finding in doctor.check_cores()] == [mark]


@pytest.mark.parametrize(
    ("available", "limit", "used", "mark"),
    [(8, "max", 1, "✓"), (2, "max", 1, "!"), (1, "max", 1, "✗"), (8, "5e9", 4, "✗"), (8, "6e9", 4, "!")],
)
def test_memory_is_what_the_machine_and_the_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: int, limit: str, used: int, mark: str
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {available * 10**9 // 1024} kB\n")
    (tmp_path / "memory.max").write_text(limit if limit == "max" else f"{float(limit):.0f}")
    (tmp_path / "memory.current").write_text(f"{used * 10**9}\n")
    monkeypatch.setattr(doctor, "PROC", tmp_path)
    monkeypatch.setattr(doctor, "CGROUP", tmp_path)
    assert [finding.mark for finding in doctor.check_memory()] == [mark]


@pytest.mark.parametrize(
    ("system", "machine", "mark"), [("Linux", "aarch64", "✓"), ("Linux", "riscv64", "!"), ("Darwin", "arm64", "✗")]
)
def test_another_system(monkeypatch: pytest.MonkeyPatch, system: str, machine: str, mark: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert [finding.mark for finding in doctor.check_system()] == [mark]


def test_a_python_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 2))
    [found] = doctor.check_python()
    assert found.mark == "✗"
    assert "3.11 or newer is needed" in found.text


def test_a_python_that_cannot_make_virtual_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    [found] = doctor.check_python()
    assert (found.mark, "python3-venv" in found.text) == ("✗", True)


def test_a_check_that_cannot_be_made_does_not_stop_the_others(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").mkdir()
    monkeypatch.setattr(doctor, "PROC", tmp_path)
    monkeypatch.setenv("VIRTFLOW_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("VIRTFLOW_CACHE_HOME", str(home / "cache"))
    findings = list(diagnose())
    [memory] = [finding for finding in findings if finding.text.startswith("Memory: it could not be looked up")]
    assert memory.mark == "!"
    assert findings[-1] == Finding("✓", f"Toolchain: it is in {home / 'cache' / 'toolchain'}")
