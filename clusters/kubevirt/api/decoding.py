"""Reading an object as KubeVirt's webhooks do: first against its schema, then value by value.

The kube-apiserver calls mutating webhooks before it validates, so a missing field is first missed here, and the
client sees the webhook's name. Two steps, because they answer differently: the schema's complaints (required,
type) are collected into one 422; a value the types cannot hold (a quantity, a negative count) ends in a 400.
What passes has every field of the schema in its declared type and no nulls, so that rules need no type checks.
"""

from collections.abc import Iterator
from typing import Any

from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.api.refusals import Cause, Refused
from clusters.kubevirt.crds import schema
from virtflow.kube import Object

__all__ = ["decode"]

STRING_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "generateName": {"type": "string"},
        "namespace": {"type": "string"},
        "deletionTimestamp": {"type": "string"},
        "labels": STRING_MAP,
        "annotations": STRING_MAP,
        "finalizers": {"type": "array", "items": {"type": "string"}},
    },
}
"""The part of metadata that the webhooks read: the schemas leave it to the kube-apiserver, or to no one."""

UNSIGNED = {"cores": "uint32", "sockets": "uint32", "threads": "uint32", "maxSockets": "uint32", "bootOrder": "uint"}
"""Integers that KubeVirt holds unsigned."""

HOLDERS = {"cpu": "CPU", "currentCPUTopology": "CPUTopology", "disks": "Disk", "interfaces": "Interface"}
"""The types they are fields of, as a decoder's complaint names them."""

TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
}
NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def decode(kind: str, obj: object) -> Object:
    """The object without its nulls. Raises `Refused`."""
    causes = list(complaints(obj, schema(kind), ""))
    if causes:
        raise Refused.for_causes(causes)
    check_values(obj, schema(kind), "")
    decoded: Object = without_nulls(obj)
    return decoded


def complaints(value: object, rule: Object, path: str) -> Iterator[Cause]:
    if "x-kubernetes-int-or-string" in rule:
        if type(value) not in (int, str):
            yield wrong_type(value, "string", path)
        return
    if not isinstance(value, TYPES[rule["type"]]) or (rule["type"] == "integer" and isinstance(value, bool)):
        yield wrong_type(value, rule["type"], path)
    elif isinstance(value, dict):
        yield from complaints_of_object(value, METADATA if is_metadata(path) else rule, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from complaints(item, rule["items"], f"{path}[{index}]")


def complaints_of_object(value: Object, rule: Object, path: str) -> Iterator[Cause]:
    for name in rule.get("required", ()):
        if value.get(name) is None:
            yield Cause(f"{join(path, name)} in body is required", reason="")
    for name, item, below in fields(value, rule):
        yield from complaints(item, below, join(path, name))


def check_values(value: object, rule: Object, path: str) -> None:
    if isinstance(value, dict):
        for name, item, below in fields(value, rule):
            check_values(item, below, join(path, name))
            if name in UNSIGNED and isinstance(item, int) and item < 0:
                holder = HOLDERS[path.rpartition(".")[2]]
                raise Refused.unreadable(
                    f"json: cannot unmarshal number {item} into Go struct field "
                    f"{holder}.{join(path, name)} of type {UNSIGNED[name]}"
                )
    elif isinstance(value, list):
        for item in value:
            check_values(item, rule["items"], path)
    elif "pattern" in rule and isinstance(value, (str, int)):
        try:
            Quantity.parse(value)
        except ValueError as error:
            raise Refused.unreadable(str(error)) from error


def fields(value: Object, rule: Object) -> Iterator[tuple[str, Any, Object]]:
    """The fields that the schema knows and that are there, each with its own schema."""
    for name, item in value.items():
        below = rule.get("properties", {}).get(name, rule.get("additionalProperties"))
        if below is not None and item is not None:
            yield name, item, below


def wrong_type(value: object, wanted: str, path: str) -> Cause:
    message = f'{path} in body must be of type {wanted}: "{NAMES.get(type(value), "null")}"'
    return Cause(message.lstrip(), reason="")


def is_metadata(path: str) -> bool:
    return path == "metadata" or path.endswith(".metadata")


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
