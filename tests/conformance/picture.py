"""What there is when a situation has settled: objects, events, and what `kubectl get -o wide` prints of them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.conformance.names import Names
from tests.conformance.records import KWOK, condition_told, is_followed
from virtflow.kube import Object

__all__ = ["event_told", "masked_rows", "picture_of", "rows_of"]

# What a node's part is, a kubelet's or kwok's, is not KubeVirt's.
POD_STATUS = ("phase", "qosClass")
TIMES = re.compile(r".*(Timestamp|Time)")
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|[0-9a-f:]+:[0-9a-f:]+")
MASKED_COLUMNS = {
    "AGE": re.compile(r".+"),
    "IP": ADDRESS,
    "NODE": re.compile(r"[^<].*"),
    "NODENAME": re.compile(r".+"),
}


def picture_of(obj: Object, names: Names) -> Object:
    """An object's alias, its metadata and conditions as lists of words, the rest of its status as it is, by path."""
    kind, meta, status = obj["kind"], obj["metadata"], obj.get("status") or {}
    conditions = [each for each in status.get("conditions") or () if is_followed(kind, each)]
    parts = {
        "labels": _pairs(meta.get("labels"), names),
        "annotations": _pairs(meta.get("annotations"), names),
        "finalizers": sorted(meta.get("finalizers") or ()),
        "owners": sorted(_owner(each, names) for each in meta.get("ownerReferences") or ()),
        "conditions": sorted(names.mask(f"{each['type']} {condition_told(each)}") for each in conditions),
        "status": dict(_status_parts(kind, status, names)),
    }
    return {"object": names.alias(kind, meta["name"]), **{name: part for name, part in parts.items() if part}}


def _pairs(pairs: Mapping[str, str] | None, names: Names) -> list[str]:
    return sorted(f"{key}={names.mask(value)}" for key, value in (pairs or {}).items() if not KWOK.match(key))


def _owner(owner: Object, names: Names) -> str:
    words = [names.alias(owner["kind"], owner["name"]), names.mask(owner["uid"])]
    words += [word for word in ("controller", "blockOwnerDeletion") if owner.get(word)]
    return ", ".join([*words, owner["apiVersion"]])


def _status_parts(kind: str, status: Object, names: Names) -> Iterator[tuple[str, Any]]:
    for path, value in sorted(status.items()):
        if path == "conditions" or (kind == "Pod" and path not in POD_STATUS):
            continue
        if path == "phaseTransitionTimestamps":
            yield "phases", ", ".join(each["phase"] for each in value)
        elif path == "launcherContainerImageVersion":
            yield path, "<image>"
        else:
            yield path, _plain(value, names)


def _plain(value: Any, names: Names) -> Any:
    """Without times, and with masked names, in keys too."""
    if isinstance(value, dict):
        return {
            names.mask(k): _plain(v, names) for k, v in sorted(value.items()) if v is None or not TIMES.fullmatch(k)
        }
    if isinstance(value, list):
        return [_plain(each, names) for each in value]
    return names.mask(value) if isinstance(value, str) else value


def event_told(event: Object, names: Names) -> str:
    return names.mask(f"{event['type']} {event['reason']} {event['involvedObject']['kind']}: ") + names.mask(
        event["message"]
    )


def rows_of(table: Object, names: Names) -> list[str]:
    """A server's Table as kubectl prints it, wide; ages, addresses and nodes masked; rows sorted."""
    heads = [column["name"].upper() for column in table.get("columnDefinitions", ())]
    return masked_rows(
        heads, [["" if cell is None else str(cell) for cell in row["cells"]] for row in table["rows"]], names
    )


def masked_rows(heads: list[str], rows: list[list[str]], names: Names) -> list[str]:
    told = []
    for row in rows:
        cells = []
        for head, cell in zip(heads, row, strict=True):
            mask = MASKED_COLUMNS.get(head)
            cells.append(f"<{head.lower()}>" if mask and mask.fullmatch(cell) else names.mask(cell))
        told.append(" | ".join(cells))
    return [" | ".join(heads), *sorted(told)] if told else []
