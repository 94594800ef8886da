"""Histories of real runs, a file each: what they are called, and what is left out of them.

`<workflow>-<manner>-<number>.json.gz`: `zcat` shows Temporal's own JSON, a line for each event, with the workflow's
id beside it and payloads as the JSON that they are. It says nothing of the machine it was made on.
"""

import base64
import gzip
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory

__all__ = ["Manner", "load", "name_of", "recorded", "text_in", "updates_in", "write"]

HISTORIES = Path(__file__).parent
NOT_KEPT = frozenset({"stackTrace", "taskId", "workerVersion", "meteringMetadata", "historySizeBytes", "requestId"})
"""Of an event at any depth: paths of the machine, and figures that differ between two recordings of the same."""
ENCODING = "json/plain"
METADATA = {"encoding": base64.b64encode(ENCODING.encode()).decode()}


class Manner(StrEnum):
    """How it went."""

    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RESUMED = "resumed"
    """Its worker was killed, and another took it up from its history."""


def recorded() -> list[Path]:
    return sorted(HISTORIES.glob("*.json.gz"))


def name_of(file: Path) -> tuple[str, Manner]:
    """The workflow's type, and how it went."""
    workflow, manner, _ = file.name.split("-")
    return workflow, Manner(manner)


def load(file: Path) -> WorkflowHistory:
    content = json.loads(text_in(file))
    return WorkflowHistory.from_json(content["workflowId"], {"events": _with_payloads(content["events"])})


def text_in(file: Path) -> str:
    return gzip.decompress(file.read_bytes()).decode()


def write(workflow: str, manner: Manner, number: int, history: WorkflowHistory) -> None:
    names: dict[str, str] = {}
    events = [_tidy(event, names) for event in history.to_json_dict()["events"]]
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    text = f'{{"workflowId": {json.dumps(history.workflow_id)}, "events": [\n{lines}\n]}}\n'
    # Without a time, so that the same is the same file.
    (HISTORIES / f"{workflow}-{manner}-{number}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def _tidy(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_tidy(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("metadata") == METADATA:
        return {ENCODING: json.loads(base64.b64decode(value["data"]))}
    kept = {key: _tidy(each, names) for key, each in value.items() if key not in NOT_KEPT}
    if isinstance(kept.get("identity"), str):
        # A process and its machine: who is who matters, and not who it was.
        kept["identity"] = names.setdefault(kept["identity"], f"process-{len(names) + 1}")
    if kept.get("kind") == "TASK_QUEUE_KIND_STICKY":
        kept["name"] = "sticky"
    return kept


def _with_payloads(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_payloads(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {ENCODING}:
        return {"metadata": METADATA, "data": base64.b64encode(json.dumps(value[ENCODING]).encode()).decode()}
    return {key: _with_payloads(each) for key, each in value.items()}


def updates_in(history: WorkflowHistory) -> Iterator[str]:
    """By their names, in their order."""
    for event in history.events:
        if event.HasField("workflow_execution_update_accepted_event_attributes"):
            yield event.workflow_execution_update_accepted_event_attributes.accepted_request.input.name
