"""What the components said since a moment: the end of each log, cut where its lines become old enough.

Every program writes its times in its own way; four of them are read here. A line without a time belongs to the
line before it, as a traceback does.
"""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from virtflow.bundle.parts import Part, Scene

__all__ = ["gather_logs", "lines_since", "moment_of"]

LOOK_BACK = 1 << 20
"""Bytes of a log, of which each line is looked at."""
MOST_OF_ONE = 200 * 1024
"""Bytes of one component: that one of them talks much must not silence the others."""
UNTIMED = 50
"""Lines of a log that has no times."""

ISO = re.compile(
    rb'(?:time=|\{.*?"(?:ts|time)":\s*")?'
    rb"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
)
"""Python's logging (local time, a comma), Temporal's `time=`, the JSON of zap (etcd) and slog (kwok)."""
KLOG = re.compile(rb"^[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.\d+")
"""Kubernetes' own: no year, and local time."""
WITHIN = 120
"""Bytes at a line's beginning in which its own time is: further on, and in other places, are times it speaks of."""


async def gather_logs(part: Part, scene: Scene) -> None:
    """A file for each component that said anything."""
    for log in scene.endpoints.component_logs():
        lines = await asyncio.to_thread(_recent, log, scene.failure.since)
        part.write(f"logs/{log.name}", "lines", lines, keep_last=True, most=MOST_OF_ONE)


def _recent(log: Path, since: datetime) -> list[str]:
    lines = _end_of(log).splitlines(keepends=True)
    return [line.decode(errors="replace") for line in lines_since(lines, since)]


def _end_of(log: Path) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOOK_BACK))
        if size > LOOK_BACK:
            file.readline()
        return file.read()


def lines_since(lines: Sequence[bytes], since: datetime) -> Sequence[bytes]:
    """Those behind the last one that is older. Of a log without any time its last."""
    since = since.replace(microsecond=0)  # some programs tell no less than seconds
    old = untimed = 0
    for number, line in enumerate(lines, 1):
        moment = moment_of(line, since)
        if moment is None:
            untimed += 1
        elif moment < since:
            old = number
    if untimed == len(lines):
        return lines[-UNTIMED:]
    # What an old line goes on with is as old.
    while 0 < old < len(lines) and moment_of(lines[old], since) is None:
        old += 1
    return lines[old:]


def moment_of(line: bytes, now: datetime) -> datetime | None:
    """When a line was written, by its own word; None if it has no time. `now` gives the year where none is told."""
    if klog := KLOG.match(line):
        month, day, hour, minute, second = map(int, klog.groups())
        return _nearest(now, month, day, hour, minute, second)
    if found := ISO.match(line[:WITHIN]):
        try:
            moment = datetime.fromisoformat(found.group(1).decode().replace(",", "."))
        except ValueError:
            return None
        # Without a zone it is local time, which is what astimezone takes it for.
        return moment.astimezone(UTC)
    return None


def _nearest(now: datetime, *parts: int) -> datetime | None:
    """Of this year or, around New Year, of the one before."""
    for year in (now.astimezone().year, now.astimezone().year - 1):
        try:
            month, day, hour, minute, second = parts
            moment = datetime(year, month, day, hour, minute, second).astimezone(UTC)
        except ValueError:
            return None
        if moment <= now + timedelta(days=1):
            return moment
    return None
