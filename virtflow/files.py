"""Files that somebody may read, or that a crash may come upon, while they are written."""

from pathlib import Path

__all__ = ["write_whole"]


def write_whole(file: Path, text: str) -> None:
    """Replace the file's content at once: whoever reads it sees the old or the new."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)
