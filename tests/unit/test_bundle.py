"""A bundle's bounds, whatever there is to gather; what it takes of a log, and what it leaves out of an object."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from temporalio.client import Client

from clusters.endpoints import Endpoints
from clusters.local.kubeconfig import kubeconfig_of_token
from virtflow.bundle import Failure, write, write_bundle
from virtflow.bundle.logs import UNTIMED, lines_since, moment_of
from virtflow.bundle.objects import LAST_APPLIED, REMOVED, as_yaml, line_of
from virtflow.bundle.parts import Part, Scene
from virtflow.bundle.write import KINDS, Kind
from virtflow.kube import Object
from workflows.labels import labels_of

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MOST = 10 * 1024 * 1024
NO_TEMPORAL = cast(Client, None)
FAILURE = Failure("A feature", "A scenario", "Then it runs", "It does not.", "run/f/s", labels_of("run/f/s"), NOW)


@pytest.fixture
def endpoints(tmp_path: Path) -> Endpoints:
    """Of a cluster that is gone, and of which only logs are left."""
    logs = tmp_path / "logs"
    logs.mkdir()
    nobody = "127.0.0.1:9"
    kubeconfig = tmp_path / "admin.yaml"
    kubeconfig_of_token(kubeconfig, f"http://{nobody}", tmp_path / "unused.crt", "a-token")
    return Endpoints(
        name="test",
        kubevirt="stand-in",
        kubeconfig=kubeconfig,
        ca_cert=tmp_path / "unused.crt",
        gateway_url=f"https://{nobody}",
        guests_url=f"http://{nobody}",
        audit_log=logs / "audit.log",
        access_log=logs / "gateway-access.log",
        temporal_address=nobody,
        temporal_ui=f"http://{nobody}",
    )


def test_all_parts_together_have_room_in_ten_mebibytes_and_ten_seconds() -> None:
    assert sum(kind.most for kind in KINDS) < MOST
    assert timedelta(seconds=10) > write.WITHIN


@given(st.lists(st.text(st.characters(codec="utf-8"))), st.integers(0, 100), st.booleans())
def test_a_part_writes_whole_pieces_within_its_room_and_says_what_it_left_out(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], room: int, keep_last: bool
) -> None:
    folder = tmp_path_factory.mktemp("part")
    part = Part(folder, room)
    part.write("a.txt", "pieces", pieces, keep_last=keep_last)
    content = (folder / "a.txt").read_bytes() if part.files else b""
    assert len(content) + part.room == room
    kept = int(part.files[0][1].split()[0]) if part.files else 0
    whole = pieces[len(pieces) - kept :] if keep_last else pieces[:kept]
    assert content == "".join(whole).encode()
    assert bool(part.left_out) == (kept < len(pieces))


def test_one_file_may_have_less_than_its_part(tmp_path: Path) -> None:
    part = Part(tmp_path, 100)
    part.write("logs/a.log", "lines", ["1234\n"] * 4, keep_last=True, most=12)
    assert (tmp_path / "logs" / "a.log").read_text() == "1234\n1234\n"
    assert part.room == 90
    assert part.left_out == ["logs/a.log: 2 of 4 lines, for which there was no room"]


def gathers(gather: Callable[[Part, Scene], None]) -> Kind:
    async def run(part: Part, scene: Scene) -> None:
        gather(part, scene)

    return Kind("well", 100, run)


async def hang(part: Part, _: Scene) -> None:
    part.write("begun.txt", "lines", ["one\n"])
    await asyncio.Event().wait()


async def break_down(_part: Part, _scene: Scene) -> None:
    raise RuntimeError("it rained")


@pytest.mark.anyio
async def test_what_hangs_or_fails_is_named_and_keeps_nothing_else_from_being_written(
    endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = gathers(lambda part, _: part.write("well.txt", "lines", ["one\n", "two\n"]))
    monkeypatch.setattr(write, "KINDS", (Kind("late", 100, hang), Kind("broken", 100, break_down), well))
    monkeypatch.setattr(write, "WITHIN", timedelta(seconds=0.2))
    index = await write_bundle(tmp_path / "bundle", FAILURE, endpoints, NO_TEMPORAL)
    text = index.read_text()
    assert (tmp_path / "bundle" / "well.txt").read_text() == "one\ntwo\n"
    assert "| [begun.txt](begun.txt) | 1 lines | 0 |" in text
    assert "| [well.txt](well.txt) | 2 lines | 0 |" in text
    assert "- late: not all was there within 0.2 s" in text
    assert "- broken: RuntimeError: it rained" in text
    assert "Failed: Then it runs" in text
    assert "It does not." in text


@pytest.mark.anyio
async def test_of_a_cluster_that_is_gone_the_logs_are_kept(endpoints: Endpoints, tmp_path: Path) -> None:
    for name in ("worker.log", "audit.log", "audit-2026-11-23T10-00-00.000.log", "gateway-access.log"):
        (endpoints.access_log.parent / name).write_text(f"{NOW:%Y-%m-%dT%H:%M:%SZ} said\n")
    index = await write_bundle(tmp_path / "bundle", FAILURE, endpoints, NO_TEMPORAL)
    assert [file.name for file in (tmp_path / "bundle").rglob("*.log")] == ["worker.log"]
    left_out = [line.split(":")[0] for line in index.read_text().splitlines() if line.startswith("- ")]
    assert left_out == ["- objects", "- events", "- histories"]


KLOG = "I%m%d %H:%M:%S.000000   12 a.go:1] said"
PYTHON = "%Y-%m-%d %H:%M:%S,000 INFO a said"
ZAP = '{"level":"info","ts":"%Y-%m-%dT%H:%M:%S.000Z","msg":"said"}'
KWOK = '{"time":"%Y-%m-%dT%H:%M:%S.000000000Z","level":"INFO","msg":"said"}'
TEMPORAL = "time=%Y-%m-%dT%H:%M:%S.000+00:00 level=WARN msg=said"
# Of every day at noon: an hour that no clock skips.
noons = st.integers(0, 330).map(lambda days: datetime(2026, 11, 23, 12) - timedelta(days=days))


@given(st.sampled_from([KLOG, PYTHON, ZAP, KWOK, TEMPORAL]), noons)
def test_the_times_of_all_programs_are_read(form: str, moment: datetime) -> None:
    at = moment.replace(tzinfo=UTC) if form in (ZAP, KWOK, TEMPORAL) else moment.astimezone(UTC)
    assert moment_of(moment.strftime(form).encode(), at + timedelta(hours=1)) == at


@pytest.mark.parametrize(
    "line", [b"", b"Traceback (most recent call last):", b"I1399 99:00:00.0", b"2026-13-01 00:00:00"]
)
def test_a_line_without_a_time_has_none(line: bytes) -> None:
    assert moment_of(line, NOW) is None


def test_new_year_is_no_trap() -> None:
    just_after = datetime(2027, 1, 1, 0, 1).astimezone(UTC)
    assert moment_of(b"I1231 23:59:00.000000", just_after) == datetime(2026, 12, 31, 23, 59).astimezone(UTC)


def said_at(second: int) -> bytes:
    return f"2026-11-23T12:00:{second:02}Z said\n".encode()


def test_what_an_old_line_goes_on_with_is_as_old() -> None:
    lines = [said_at(1), b"  a traceback\n", said_at(5), b"  another\n", said_at(6)]
    assert lines_since(lines, NOW + timedelta(seconds=5.5)) == lines[2:]
    assert lines_since(lines, NOW) == lines
    assert lines_since(lines, NOW + timedelta(seconds=9)) == []


@pytest.mark.parametrize(
    "quotes",
    [
        b"  the certificate has expired on 2020-01-01T00:00:00Z\n",
        b'  File "a.py", in b: "time":"2020-01-01T00:00:00Z"\n',
        b"    at 2020-01-01 00:00:00,000\n",
        b"Error: time=2020-01-01T00:00:00Z is not valid\n",
    ],
)
def test_an_old_time_that_a_line_speaks_of_makes_nothing_old(quotes: bytes) -> None:
    lines = [said_at(1), said_at(5), quotes, said_at(6)]
    assert lines_since(lines, NOW + timedelta(seconds=4)) == lines[1:]
    assert moment_of(quotes, NOW) is None


def test_a_log_without_times_is_kept_by_its_end() -> None:
    lines = [b"said\n"] * (2 * UNTIMED)
    assert len(lines_since(lines, NOW)) == UNTIMED


def test_what_is_in_a_secret_is_not_kept_and_who_manages_which_field_neither() -> None:
    secret = {
        "kind": "Secret",
        "metadata": {"name": "a", "managedFields": [1], "annotations": {LAST_APPLIED: "cGFzc3dvcmQ=", "b": "c"}},
        "data": {"password": "cGFzc3dvcmQ="},
        "stringData": {"other": "word"},
    }
    kept = yaml.safe_load(as_yaml(secret))
    assert kept["data"] == {"password": REMOVED}
    assert kept["stringData"] == {"other": REMOVED}
    assert kept["metadata"] == {"name": "a", "annotations": {LAST_APPLIED: REMOVED, "b": "c"}}
    assert secret["data"] == {"password": "cGFzc3dvcmQ="}
    machine = {"kind": "VirtualMachine", "metadata": {"name": "a"}, "spec": {"running": True}}
    assert yaml.safe_load(as_yaml(machine)) == machine


def test_an_event_is_a_line() -> None:
    event = {
        "metadata": {"creationTimestamp": "2026-11-23T11:00:00Z"},
        "lastTimestamp": "2026-11-23T12:00:00Z",
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "exceeded\nquota",
        "count": 3,
        "source": {"component": "virt-controller"},
        "involvedObject": {"kind": "Pod", "namespace": "tenant-a-1", "name": "one"},
    }
    assert line_of(event) == (
        "2026-11-23T12:00:00Z Warning FailedCreate tenant-a-1 Pod/one: exceeded quota (3 times, by virt-controller)\n"
    )


@pytest.mark.parametrize(
    ("fields", "at", "times"),
    [
        ({"series": {"count": 2, "lastObservedTime": "2026-11-23T12:00:00.1Z"}}, "12:00:00.1Z", " (2 times)"),
        ({"series": None, "eventTime": "2026-11-23T11:30:00Z"}, "11:30:00Z", ""),
        ({"lastTimestamp": None}, "11:00:00Z", ""),
    ],
)
def test_each_recorders_time_is_an_events(fields: Object, at: str, times: str) -> None:
    event = {"metadata": {"creationTimestamp": "2026-11-23T11:00:00Z"}, "message": "no", **fields}
    assert line_of(event) == f"2026-11-23T{at}    /: no{times}\n"
