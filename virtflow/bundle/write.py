"""Writing a bundle: all parts at once, within a time for all and a size for each, and an index of what there is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.client import Client

from clusters.endpoints import Endpoints
from virtflow.bundle.histories import gather_histories
from virtflow.bundle.logs import gather_logs
from virtflow.bundle.objects import gather_events, gather_objects
from virtflow.bundle.parts import Failure, Part, Scene
from virtflow.bundle.sequence import gather_sequence
from virtflow.kube import KubeClient, describe

__all__ = ["INDEX", "WITHIN", "write_bundle"]

INDEX = "index.md"
WITHIN = timedelta(seconds=9)
"""For all that is gathered: with the index it is ten at most, which the next scenario has to wait."""
WRITING = timedelta(seconds=2)
"""Of these, for what was read until then to be written."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Kind:
    title: str
    most: int
    """Bytes. All together are less than ten mebibytes."""
    gather: Callable[[Part, Scene], Awaitable[None]]


KINDS = (
    Kind("objects", 3 * MEBIBYTE, gather_objects),
    Kind("events", MEBIBYTE // 2, gather_events),
    Kind("sequence", MEBIBYTE, gather_sequence),
    Kind("logs", 2 * MEBIBYTE, gather_logs),
    Kind("histories", 3 * MEBIBYTE, gather_histories),
)


async def write_bundle(folder: Path, failure: Failure, endpoints: Endpoints, temporal: Client) -> Path:
    """Gather what there is into the folder and return its index, which also says what is not there and why.

    Nothing that is away keeps the rest from being written. Raises OSError if nothing can be.
    """
    began = time.monotonic()
    async with await KubeClient.connect(endpoints.kubeconfig) as kube:
        deadline = began + WITHIN.total_seconds()
        # Who reads for long stops before, and what it has is written.
        scene = Scene(failure, endpoints, kube, temporal, deadline - WRITING.total_seconds())
        parts = {kind: Part(folder, kind.most) for kind in KINDS}
        tasks = {asyncio.create_task(_whole(kind, parts[kind], scene)): kind for kind in KINDS}
        _, late = await asyncio.wait(tasks, timeout=deadline - time.monotonic())
        for task in late:
            parts[tasks[task]].left_out.append(f"not all was there within {WITHIN.total_seconds():g} s")
            task.cancel()
        # Its files are what it is: one that goes on would write more than the index says.
        await asyncio.gather(*tasks, return_exceptions=True)
    return _write_index(folder, _index(failure, endpoints, parts, time.monotonic() - began))


async def _whole(kind: Kind, part: Part, scene: Scene) -> None:
    try:
        await kind.gather(part, scene)
    except Exception as error:  # whatever it is, the other parts are worth having
        part.left_out.append(describe(error))


def _write_index(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / INDEX
    index.write_text(text)
    return index


def _index(failure: Failure, endpoints: Endpoints, parts: dict[Kind, Part], took: float) -> str:
    files = [file for part in parts.values() for file in part.files]
    left_out = [f"- {kind.title}: {line}" for kind, part in parts.items() for line in part.left_out]
    size = sum(size for _, _, size in files) / 1024
    lines = [
        f"# {failure.scenario}",
        "",
        f"Feature: {failure.feature}",
        "",
        f"Failed: {failure.step}",
        "",
        "```",
        failure.error,
        "```",
        "",
        f"Gathered at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC in {took:.1f} s, before the scenario was undone: "
        f"{size:.0f} KiB. Log lines since {failure.since.astimezone(UTC):%H:%M:%S} UTC.",
        "",
        f"Labels: {', '.join(f'{key}={value}' for key, value in failure.labels.items())}",
        "",
        f"Workflow: {failure.workflow_id}",
        "",
        f"KubeVirt: {endpoints.kubevirt}",
        "",
        "| file | has | KiB |",
        "| --- | --- | --- |",
        *(f"| [{name}]({name}) | {what} | {size / 1024:.0f} |" for name, what, size in files),
        "",
        *(["## Left out", "", *left_out, ""] if left_out else []),
    ]
    return "\n".join(lines)
