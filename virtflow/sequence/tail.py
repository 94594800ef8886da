"""A log that grows, is rotated, and whose writer may be killed: its lines, each once, in the order of writing.

The rotation is lumberjack's, which kube-apiserver and the gateway use: the full file is closed, renamed to
NAME-<time>.log, and a new one is made under the old name. Nobody writes to a renamed file, and the times sort. So a
file that is not the log any more is read to its end and followed by the next in that order, and a reader that starts
anew starts with the oldest there is, or with the last so many bytes of all.

A writer that was killed leaves half a line, and the next one writes on behind it, in the same line.
`whole_records` says what is in such a line.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["Tail", "whole_records"]

ROTATED = "{stem}-????-??-??T??-??-??.???{suffix}"
BUFFER = 1 << 18


class Tail:
    """Keeps the file it reads open: so its inode, which tells it from its successors, is not used again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._next: BinaryIO | None = None
        self._begun = b""

    @classmethod
    def from_end(cls, path: Path, *, back: int = 0) -> "Tail":
        """Begins with the first line in the last `back` bytes there are now, those of rotated files among them."""
        tail = cls(path)
        # Opened before the others are listed: renamed in between, it is among them.
        newest = _open(path, but=None)
        own = _identity(newest) if newest else None
        files = [file for file in (*(_open(each, but=own) for each in tail._rotated()), newest) if file]
        while files:
            tail._file = files.pop()
            back -= tail._file.seek(0, os.SEEK_END)
            if back <= 0 or not files:
                break
            tail._file.close()
        for file in files:
            file.close()
        if tail._file:
            # From the byte before: where that ends a line, the next one is whole.
            tail._file.seek(max(-back - 1, 0))
            if back < 0:
                tail._file.readline()
        return tail

    def next_line(self) -> bytes | None:
        """The next line, or None at the end there is now. A log that is not there yet is empty.

        A line without its end is left alone as long as somebody may write on; in a file that was rotated nobody
        will, and it is returned as it is.
        """
        while True:
            self._begun += self._file.readline() if self._file else b""
            if self._begun.endswith(b"\n"):
                return self._take()
            if self._next:
                # It was there before our last look into this file, which therefore found the very end.
                self._switch()
                if self._begun:
                    return self._take()
            else:
                self._next = self._successor()
                if not self._next:
                    return None

    @property
    def position(self) -> int:
        """Bytes read of the present file."""
        return self._file.tell() if self._file else 0

    def close(self) -> None:
        for file in (self._file, self._next):
            if file:
                file.close()

    def _take(self) -> bytes:
        line, self._begun = self._begun, b""
        return line

    def _switch(self) -> None:
        if self._file:
            self._file.close()
        self._file, self._next = self._next, None

    def _successor(self) -> BinaryIO | None:
        own = _identity(self._file) if self._file else None
        # Opened before the others are listed: renamed in between, it is among them.
        newest = _open(self._path, but=own)
        if not newest:
            return None
        rotated = self._rotated()
        after_own = next((number for number, path in enumerate(rotated, 1) if own and _identity_of(path) == own), 0)
        if after_own == len(rotated) or (own and not after_own):
            return newest
        newest.close()
        # None if it was the oldest and has just been removed: the next look finds the one behind it.
        return _open(rotated[after_own], but=None)

    def _rotated(self) -> list[Path]:
        return sorted(self._path.parent.glob(ROTATED.format(stem=self._path.stem, suffix=self._path.suffix)))


def _open(path: Path, but: tuple[int, int] | None) -> BinaryIO | None:
    try:
        file = path.open("rb", buffering=BUFFER)
    except FileNotFoundError:
        return None
    if _identity(file) != but:
        return file
    file.close()
    return None


def _identity(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def whole_records(line: bytes, start: bytes) -> list[bytes]:
    """The JSON records in a line that is not one: whatever begins with `start` and is whole.

    Behind one comes another's brace, or nothing: behind a record within a record's body come other things.
    """
    text, head = line.decode(errors="replace").rstrip("\n"), start.decode()
    decoder, records = json.JSONDecoder(), []
    place = text.find(head)
    while place >= 0:
        end = place + 1
        with contextlib.suppress(ValueError):
            _, after = decoder.raw_decode(text, place)
            if after == len(text) or text[after] == "{":
                records.append(text[place:after].encode())
                end = after
        place = text.find(head, end)
    return records
