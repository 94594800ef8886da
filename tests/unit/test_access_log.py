"""The access log has a size, and whoever follows it reads each line once, whenever it was rotated."""

import json
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.gateway import access_log as module
from clusters.gateway.access_log import AccessLog, Record
from virtflow.sequence.tail import Tail

ENOUGH = 1000
HAPPENINGS = st.lists(st.sampled_from(["write", "write long", "read", "read one", "restart", "clock set back"]))


def number_of(line: bytes) -> int:
    return int(json.loads(line)["request_id"])


class Clock(datetime):
    """Stands still, so that every name has to be made different, and is set back."""

    stands_at = datetime(2026, 11, 23, 10, tzinfo=UTC)

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return cls.stands_at


@given(HAPPENINGS, st.integers(1, 1200))
def test_a_reader_reads_each_line_once_and_in_order(happenings: list[str], size: int) -> None:
    written = 0
    read: list[int] = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "datetime", Clock)
        patch.setattr(Clock, "stands_at", Clock.stands_at)
        path = Path(folder) / "access.log"
        log = AccessLog(path, size=size, kept=ENOUGH)
        with closing(Tail(path)) as reader:
            for happening in happenings:
                match happening:
                    case "write" | "write long":
                        long = happening == "write long"
                        log.write(Record(str(written), reason="é" * 300 if long else ""), timedelta(milliseconds=1))
                        written += 1
                    case "read":
                        read += map(number_of, iter(reader.next_line, None))
                        assert read == list(range(written))
                    case "read one":
                        read += map(number_of, filter(None, [reader.next_line()]))
                    case "restart":
                        log.close()
                        log = AccessLog(path, size=size, kept=ENOUGH)
                    case _:
                        Clock.stands_at -= timedelta(hours=1)
            log.close()
            read += map(number_of, iter(reader.next_line, None))
        assert read == list(range(written))
        with closing(Tail(path)) as late:
            assert [number_of(line) for line in iter(late.next_line, None)] == read
        files = sorted(Path(folder).iterdir())
        assert all(file.stat().st_size <= size or file.read_bytes().count(b"\n") == 1 for file in files)


def test_the_latest_of_the_full_ones_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with closing(AccessLog(path, size=1, kept=2)) as log:
        for number in range(5):
            log.write(Record(str(number)), timedelta(0))
    assert len(list(tmp_path.iterdir())) == 3
    with closing(Tail(path)) as reader:
        assert [number_of(line) for line in iter(reader.next_line, None)] == [2, 3, 4]


def test_who_reads_a_file_that_is_removed_goes_on_with_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with closing(AccessLog(path, size=1, kept=1)) as log, closing(Tail(path)) as reader:
        log.write(Record("0"), timedelta(0))
        assert number_of(reader.next_line() or b"") == 0
        for number in range(1, 5):
            log.write(Record(str(number)), timedelta(0))
        later = [line for _ in range(5) if (line := reader.next_line())]
    # What it held open it has read, and it comes to the log's end.
    assert number_of(later[-1]) == 4


def test_a_rotation_that_fails_does_not_end_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "access.log"
    with closing(AccessLog(path, size=1)) as log:
        log.write(Record("0"), timedelta(0))
        path.unlink()
        log.write(Record("1"), timedelta(0))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", refuse)
            log.write(Record("2"), timedelta(0))
        assert [number_of(line) for line in path.read_bytes().splitlines()] == [1, 2]
        log.write(Record("3"), timedelta(0))
        assert [number_of(line) for line in path.read_bytes().splitlines()] == [3]


def refuse(*_: object) -> None:
    raise PermissionError


def test_no_reason_fills_the_log(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with closing(AccessLog(path)) as log:
        log.write(Record("0", reason="\U000e0001" * 1_000_000), timedelta(0))
    assert path.stat().st_size < 16 * 1024


@pytest.mark.parametrize(
    ("code", "allowed", "verdict"),
    [
        (201, True, "allowed"),
        (429, True, "allowed"),
        (401, False, "unauthenticated"),
        (403, False, "denied"),
        (429, False, "too many"),
        (408, False, "bad request"),
        (504, False, "unavailable"),
    ],
)
def test_the_verdict_is_the_gateways(code: int, allowed: bool, verdict: str) -> None:
    assert Record("id", code=code, allowed=allowed).verdict == verdict
