"""Histories of real runs, a file each: what they are called, and what is left out of them.

`<workflow>-<manner>-<number>.json`. A file is Temporal's own JSON, a line for each event, with the workflow's id
beside it. It says nothing of the machine it was made on, and has nothing that a replay does not need.
"""

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory

__all__ = ["HISTORIES", "Manner", "load", "name_of", "recorded", "updates_in", "write"]

HISTORIES = Path(__file__).parent
NOT_NEEDED = frozenset(
    {"stackTrace", "taskId", "workerVersion", "meteringMetadata", "historySizeBytes", "requestId", "sdkName"}
)
"""Of an event at any depth: paths of the machine, and figures that differ between two recordings of the same."""


class Manner(StrEnum):
    """How it went."""

    PASSED = "passed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RESUMED = "resumed"
    """Its worker was killed, and another took it up from its history."""


def recorded() -> list[Path]:
    return sorted(HISTORIES.glob("*.json"))


def name_of(file: Path) -> tuple[str, Manner]:
    """The workflow's type, and how it went."""
    workflow, manner, _ = file.stem.split("-")
    return workflow, Manner(manner)


def load(file: Path) -> WorkflowHistory:
    content = json.loads(file.read_text())
    return WorkflowHistory.from_json(content["workflowId"], {"events": content["events"]})


def write(workflow: str, manner: Manner, number: int, history: WorkflowHistory) -> None:
    (HISTORIES / f"{workflow}-{manner}-{number}.json").write_text(text_of(history))


def text_of(history: WorkflowHistory) -> str:
    names: dict[str, str] = {}
    events = [_tidy(event, names) for event in history.to_json_dict()["events"]]
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    return f'{{"workflowId": {json.dumps(history.workflow_id)}, "events": [\n{lines}\n]}}\n'


def _tidy(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_tidy(each, names) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _tidy(each, names) for key, each in value.items() if key not in NOT_NEEDED}
    if isinstance(kept.get("identity"), str):
        # A process and its machine: who is who matters, and not who it was.
        kept["identity"] = names.setdefault(kept["identity"], f"process-{len(names) + 1}")
    if kept.get("kind") == "TASK_QUEUE_KIND_STICKY":
        kept["name"] = "sticky"
    return kept


def updates_in(history: WorkflowHistory) -> Iterator[str]:
    """By their names, in their order."""
    for event in history.events:
        if event.HasField("workflow_execution_update_accepted_event_attributes"):
            yield event.workflow_execution_update_accepted_event_attributes.accepted_request.input.name
