"""Whatever becomes of a log between two looks at it, each of its lines is read once and in order."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.log_support import RotatingWriter
from virtflow.sequence import tail
from virtflow.sequence.tail import Tail, whole_records

ROTATE, READ, LOOK_MIDWAY = "rotate", "read", "look while it is renamed"
WRITES = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"d\ne", b"\n\n"]), min_size=1).map(b"".join)
HAPPENINGS = st.lists(WRITES | st.sampled_from([ROTATE, READ, LOOK_MIDWAY]), max_size=40)


@contextmanager
def writer() -> Iterator[RotatingWriter]:
    with tempfile.TemporaryDirectory() as folder, closing(RotatingWriter(Path(folder) / "audit.log")) as log:
        # Neither is a rotated part of it.
        (log.path.parent / "audit-policy.log").write_bytes(b"another\n")
        (log.path.parent / "audit-2026-11-23T10-00-00.000.log.gz").write_bytes(b"another\n")
        yield log


def read_all(log: Tail) -> list[bytes]:
    return list(iter(log.next_line, None))


def at_once(files: list[bytes]) -> list[bytes]:
    """Each file's lines; what has no end is one in every file but the last."""
    *rotated, newest = (content.splitlines(keepends=True) for content in files)
    return [*(line for lines in rotated for line in lines), *(line for line in newest if line.endswith(b"\n"))]


@given(HAPPENINGS)
def test_each_line_is_read_once_and_in_order(happenings: list[bytes | str]) -> None:
    files, read = [b""], []
    with writer() as log, closing(Tail(log.path)) as reader:
        for happening in happenings:
            match happening:
                case bytes():
                    log.write(happening)
                    files[-1] += happening
                case "read":
                    read += read_all(reader)
                    assert read == at_once(files)
                case _:
                    log.rename()
                    if happening == LOOK_MIDWAY:
                        read += read_all(reader)
                    log.make()
                    files.append(b"")
        assert read + read_all(reader) == at_once(files)
        with closing(Tail(log.path)) as successor:
            assert read_all(successor) == at_once(files)


@given(st.lists(WRITES, min_size=1, max_size=5), st.integers(0, 5))
def test_a_rotation_during_the_look_for_one_loses_nothing(contents: list[bytes], before: int) -> None:
    """Each time the log has been opened, before the others are listed, it is rotated under the reader's hands."""
    waiting = list(contents)

    def open_and_rotate(path: Path, but: tuple[int, int] | None) -> BinaryIO | None:
        opened = open_(path, but)
        if waiting:
            log.write(waiting.pop())
            log.rotate()
        return opened

    open_ = tail._open  # noqa: SLF001 - the moment between its two steps
    expected = at_once([*reversed(contents), b""])
    with writer() as log, closing(Tail(log.path)) as reader, pytest.MonkeyPatch.context() as patch:
        for _ in range(min(before, len(waiting))):
            log.write(waiting.pop())
            log.rotate()
        patch.setattr(tail, "_open", open_and_rotate)
        read = []
        while waiting:
            read += read_all(reader)
        assert read + read_all(reader) == expected


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    with closing(Tail(tmp_path / "audit.log")) as reader:
        assert read_all(reader) == []
        (tmp_path / "audit.log").write_bytes(b"a\n")
        assert read_all(reader) == [b"a\n"]


@given(st.lists(st.integers(0, 30).map(lambda length: b"x" * length + b"\n"), max_size=12), st.data())
def test_from_the_end_are_the_last_bytes_of_all_files_in_whole_lines(lines: list[bytes], data: st.DataObject) -> None:
    back = data.draw(st.integers(0, sum(map(len, lines)) + 5))
    with writer() as log:
        for line in lines:
            log.write(line)
            if data.draw(st.booleans()):
                log.rotate()
        starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
        whole = [line for start, line in zip(starts, lines, strict=True) if start >= sum(map(len, lines)) - back]
        with closing(Tail.from_end(log.path, back=back)) as reader:
            log.write(b"later\n")
            log.rotate()
            log.write(b"latest\n")
            assert read_all(reader) == [*whole, b"later\n", b"latest\n"]


def test_from_the_end_while_the_log_is_renamed() -> None:
    with writer() as log:
        log.write(b"a\nb\n")
        log.rename()
        with closing(Tail.from_end(log.path, back=2)) as reader:
            log.make()
            log.write(b"c\n")
            assert read_all(reader) == [b"b\n", b"c\n"]


START = b'{"kind":"Event"'
BODIES = st.sampled_from(["", "ü", "{", '"', '{"kind":"Event"', {"kind": "Event", "n": [1]}, [{"kind": "Event"}]])


def record(body: Any) -> bytes:
    return json.dumps({"kind": "Event", "body": body}, separators=(",", ":"), ensure_ascii=False).encode()


@given(st.lists(st.tuples(BODIES.map(record), st.none() | st.integers(0, 20)), max_size=6))
def test_of_a_line_that_writers_were_killed_in_the_whole_records_are_found(
    parts: list[tuple[bytes, int | None]],
) -> None:
    """`{"kind":"Event","body":` is 23 bytes long: a cut before that leaves no record within the record."""
    line = b"".join(text[:cut] for text, cut in parts)
    whole = [text for text, cut in parts if cut is None]
    assert whole_records(line + b"\n", START) == whole
    assert whole_records(line, START) == whole
    assert whole_records(b"\xff\xc3" + line + b"\n", START) == whole


@pytest.mark.parametrize("torn", [b",", b"]", b"}", b',{"kind":"Event"', b', "'])
def test_a_record_in_the_body_of_a_torn_one_is_none(torn: bytes) -> None:
    line = b'{"kind":"Event","body":[{"kind":"Event","forged":true}' + torn + record("")
    assert whole_records(line, START) == [record("")]
