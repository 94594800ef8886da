"""`virtflow gc`: whose leftovers are shown, whose are removed, and whose are spared."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync

from tests.unit.held_cluster import HeldCluster
from tests.unit.kube_support import client_of
from virtflow import gc, leftovers
from virtflow.errors import InfrastructureError, InputError, LeftBehindError
from virtflow.exit_codes import ExitCode
from virtflow.settings import Settings

pytestmark = pytest.mark.anyio

NAMESPACES = "/api/v1/namespaces"


class Command:
    """`virtflow gc` on a cluster of which `sessions` are open; None where nobody knows."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self.sessions: Counter[str] | None = Counter()

    async def __call__(self, *runs: str, delete: bool = False) -> ExitCode:
        def collect() -> ExitCode:
            return gc.collect_garbage(Settings(), runs=runs, delete=delete, kubeconfig=self._kubeconfig)

        with anyio.fail_after(30):
            return await run_sync(collect)


@pytest.fixture
def cluster() -> HeldCluster:
    cluster = HeldCluster()
    for run in ("r1", "r2"):
        namespace = cluster.add(NAMESPACES, f"of-{run}", run=run)
        cluster.add(f"{namespace}/secrets", "password", run=run)
    return cluster


@pytest.fixture
async def command(cluster: HeldCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Command]:
    monkeypatch.setattr(leftovers, "LOOK_EVERY", timedelta(milliseconds=1))
    monkeypatch.setattr(leftovers, "STALLED_AFTER", timedelta(milliseconds=50))
    async with client_of(cluster.handle, tmp_path):
        command = Command(tmp_path / "kubeconfig.yaml")

        async def open_sessions(_: object) -> Counter[str] | None:
            return command.sessions

        monkeypatch.setattr(gc, "_open_sessions", open_sessions)
        yield command


async def test_nothing_is_removed_unless_asked_for(
    cluster: HeldCluster, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(f"{NAMESPACES}/of-r1/secrets", "held", run="r1", finalizers=["example.com/hold"])
    assert await command() is ExitCode.PASSED
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    for run in ("r1", "r2"):
        assert [run] in lines
        assert any(line[-2:] == ["Namespace", f"of-{run}"] for line in lines)
        assert any(line[-2:] == ["Secret", f"of-{run}/password"] for line in lines)
    assert any(line[-3:] == ["Secret", "of-r1/held", "example.com/hold"] for line in lines)
    assert "Nothing was removed. With --delete it is." in said
    assert cluster.deleted == []


async def test_a_run_in_use_is_shown_and_spared(
    cluster: HeldCluster, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command.sessions = Counter({"r2": 3})
    assert await command(delete=True) is ExitCode.PASSED
    assert {path for path in cluster.objects if "r1" in path} == set()
    assert len(cluster.objects) == 2
    said = capsys.readouterr().out
    assert "r2, in use (open workflows: 3)" in said
    assert "Spared, because in use or maybe so: r2." in said


async def test_a_run_that_has_just_begun_is_spared_though_temporal_does_not_list_it_yet(
    cluster: HeldCluster, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    cluster.add(f"{NAMESPACES}/of-r2/secrets", "new", run="r2", creationTimestamp=now)
    assert await command(delete=True) is ExitCode.PASSED
    assert {path for path in cluster.objects if "r1" in path} == set()
    assert len(cluster.objects) == 3
    assert "Spared, because in use or maybe so: r2." in capsys.readouterr().out
    await command("r2", delete=True)
    assert cluster.objects == {}


async def test_a_run_in_use_is_removed_by_its_name(cluster: HeldCluster, command: Command) -> None:
    command.sessions = Counter({"r1": 1, "r2": 3})
    await command("r2", delete=True)
    assert {path for path in cluster.objects if "r2" in path} == set()
    assert len(cluster.objects) == 2


async def test_where_nobody_knows_who_is_in_use_only_names_are_removed(
    cluster: HeldCluster, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command.sessions = None
    await command(delete=True)
    assert len(cluster.objects) == 4
    assert "Spared, because in use or maybe so: r1, r2." in capsys.readouterr().out
    await command("r1", "r2", delete=True)
    assert cluster.objects == {}


async def test_what_stays_is_named_and_the_code_says_so(cluster: HeldCluster, command: Command) -> None:
    cluster.add(f"{NAMESPACES}/of-r1/secrets", "held", run="r1", finalizers=["example.com/hold"])
    with pytest.raises(LeftBehindError) as left:
        await command(delete=True)
    assert str(left.value) == (
        "Not everything has gone. Namespace of-r1 is there: Secret of-r1/held is held by the finalizer "
        "example.com/hold."
    )
    assert left.value.exit_code == ExitCode.LEFT_BEHIND
    assert {path for path in cluster.objects if "r2" in path} == set()


async def test_of_a_run_that_left_nothing_it_says_so(
    cluster: HeldCluster, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await command("r3", delete=True) is ExitCode.PASSED
    assert "Nothing of it is there." in capsys.readouterr().out
    assert len(cluster.objects) == 4


async def test_what_could_not_be_looked_at_is_no_success(cluster: HeldCluster, command: Command) -> None:
    cluster.silent.add("example.com")
    with pytest.raises(InfrastructureError, match=r"not everything could be looked at: all of example\.com/v1 "):
        await command()


@pytest.mark.parametrize("run", ["a,b", "a b", "", "-a", "a" * 64, "a)"])
async def test_what_is_no_run_is_refused_before_anybody_is_asked(
    cluster: HeldCluster, command: Command, run: str
) -> None:
    with pytest.raises(InputError, match="is no run"):
        await command(run, delete=True)
    assert not cluster.asked


async def test_a_file_that_is_no_kubeconfig_is_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "nothing.yaml"
    file.write_text("nothing: at all\n")
    with pytest.raises(InputError, match="is no kubeconfig that can be used"):
        await Command(file)()


async def test_a_cluster_that_does_not_answer_is_infrastructure(command: Command, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig.yaml"
    server = next(line for line in kubeconfig.read_text().splitlines() if "server:" in line)
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(kubeconfig.read_text().replace(server, f"{server.rpartition(':')[0]}:1"))
    with pytest.raises(
        InfrastructureError, match="The kube-apiserver cannot be asked what is left: ClientConnectorError"
    ):
        await Command(elsewhere)()
