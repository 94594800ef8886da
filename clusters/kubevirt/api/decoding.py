"""Reading an object as KubeVirt's webhooks do: against its schema, and value by value.

The kube-apiserver calls mutating webhooks before it validates, so what is missing is first missed here, and the
client sees the webhook's name. Two kinds of answer: what the schema complains of (something required, a type) is
collected into one 422; a value that the types cannot hold (a quantity, a negative count) ends in a 400.

A schema is turned into functions once, and one walk over an object checks it and copies it. What comes out has
every field of the schema in its declared type, quantities as text in their canonical form, no nulls, and a zero for
each required scalar that was left out, as a struct has it: so rules need no type checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.api.refusals import Cause, Refused
from clusters.kubevirt.crds import schema
from virtflow.kube import Object

__all__ = ["decode", "without_nulls"]

STRING: Object = {"type": "string"}
STRING_MAP: Object = {"type": "object", "additionalProperties": STRING}
OWNER: Object = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": dict.fromkeys(("apiVersion", "kind", "name", "uid"), STRING)
    | {name: {"type": "boolean"} for name in ("blockOwnerDeletion", "controller")},
}
TEXTS = ("name", "generateName", "namespace", "uid", "resourceVersion", "selfLink")
TIMES = ("creationTimestamp", "deletionTimestamp")
METADATA: Object = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        **dict.fromkeys((*TEXTS, *TIMES), STRING),
        **{name: {"type": "integer", "format": "int64"} for name in ("generation", "deletionGracePeriodSeconds")},
        **dict.fromkeys(("labels", "annotations"), STRING_MAP),
        "finalizers": {"type": "array", "items": STRING},
        "ownerReferences": {"type": "array", "items": OWNER},
        "managedFields": {"type": "array"},
    },
}
"""An object's metadata: the schemas leave it to the kube-apiserver, or, in a template, to no one."""

POLICIES = ["Honor", "Ignore"]
PULL_POLICIES = ["Always", "IfNotPresent", "Never"]
NODE_OPERATORS = ["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"]
VOLUME_MODES = ["Block", "Filesystem", "FromStorageProfile"]
ENUMS: dict[str, list[str]] = {
    "template.spec.dnsPolicy": ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    "httpGet.scheme": ["HTTP", "HTTPS"],
    "containerDisk.imagePullPolicy": PULL_POLICIES,
    "container.imagePullPolicy": PULL_POLICIES,
    "tolerations.effect": ["NoExecute", "NoSchedule", "PreferNoSchedule"],
    "tolerations.operator": ["Equal", "Exists"],
    "topologySpreadConstraints.nodeAffinityPolicy": POLICIES,
    "topologySpreadConstraints.nodeTaintsPolicy": POLICIES,
    "topologySpreadConstraints.whenUnsatisfiable": ["DoNotSchedule", "ScheduleAnyway"],
    "nodeSelectorTerms.matchExpressions.operator": NODE_OPERATORS,
    "nodeSelectorTerms.matchFields.operator": NODE_OPERATORS,
    "preference.matchExpressions.operator": NODE_OPERATORS,
    "preference.matchFields.operator": NODE_OPERATORS,
    "spec.pvc.volumeMode": VOLUME_MODES,
    "spec.storage.volumeMode": VOLUME_MODES,
}
"""Values that the webhooks hold to a list and the schemas do not, by the end of the field's path."""

UINT32 = ("cores", "sockets", "threads", "maxSockets", "supplementalPoolThreadCount", "spinlocks")
UINT = ("bootOrder", "logical", "physical", "discardGranularity")
RANGES = {
    "int": range(-(2**63), 2**63),
    "int32": range(-(2**31), 2**31),
    "int64": range(-(2**63), 2**63),
    "uint": range(2**64),
    "uint32": range(2**32),
}
NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
ZEROS: dict[str, str | bool | int] = {"string": "", "boolean": False, "integer": 0}


ANY_KEY = "*"
"""A map's key in the path of what it holds, which no key may alter: `app.metadata` is a label like another."""


@dataclass
class Problems:
    """What was found wrong on the way."""

    kind: str
    keys: list[str] = field(default_factory=list)
    """Of the maps around the value that is looked at: what stands for `ANY_KEY` in its path."""
    causes: list[Cause] = field(default_factory=list)
    unreadable: str | None = None

    def complain(self, path: str, what: str) -> None:
        self.causes.append(Cause(f"{self.with_keys(path)} in body {what}", reason=""))

    def wrong_type(self, path: str, wanted: str, value: object) -> None:
        self.complain(path, f'must be of type {wanted}: "{NAMES.get(type(value), "null")}"')

    def cannot_hold(self, path: str, value: object, wanted: str) -> None:
        holder = self.kind if self.kind == "VirtualMachineInstance" else f"{self.kind}Spec"
        holder = "VirtualMachineInstanceTemplateSpec" if ".template." in path else holder
        where = f"{holder}.{self.with_keys(path)}"
        self.cannot_read(f"json: cannot unmarshal number {value} into Go struct field {where} of type {wanted}")

    def with_keys(self, path: str) -> str:
        keys = iter(self.keys)
        # An unknown field, always the last of a path, may be called like it.
        return ".".join(next(keys, name) if name == ANY_KEY else name for name in path.split("."))

    def cannot_read(self, message: str) -> None:
        self.unreadable = self.unreadable or message


Decoder = Callable[[Any, Problems], Any]
"""A copy of a value as it should be; what is wrong with it is added to the problems."""


def decode(kind: str, obj: object) -> Object:
    """The object as its types would hold it. Raises `Refused`."""
    problems = Problems(kind)
    decoded: Object = decoder_of(kind)(obj, problems)
    if problems.causes:
        raise Refused.for_causes(problems.causes)
    if problems.unreadable is not None:
        raise Refused.unreadable(problems.unreadable)
    return decoded


@cache
def decoder_of(kind: str) -> Decoder:
    return decoder(schema(kind), "")


def decoder(rule: Object, path: str) -> Decoder:
    """The function for one part of a schema; `path` is where it stands, without the indexes of lists."""
    if is_metadata(path):
        rule = METADATA
    if "x-kubernetes-int-or-string" in rule:
        return quantity_decoder(path) if "pattern" in rule else int_or_string_decoder(path)
    if rule["type"] == "array":
        return list_decoder(rule, path)
    if rule["type"] == "object":
        return map_decoder(rule, path) if "additionalProperties" in rule else object_decoder(rule, path)
    if rule["type"] == "integer":
        return integer_decoder(rule, path)
    return scalar_decoder(rule, path)


def object_decoder(rule: Object, path: str) -> Decoder:
    below = {name: decoder(part, join(path, name)) for name, part in rule.get("properties", {}).items()}
    parts = [(name, rule["properties"][name].get("type")) for name in rule.get("required", ())]
    zeros = {name: ZEROS[kind] for name, kind in parts if kind in ZEROS}
    required = [name for name, kind in parts if kind not in ZEROS]
    # Elsewhere the kube-apiserver has removed unknown fields; what it was told to keep, KubeVirt refuses.
    closed = "x-kubernetes-preserve-unknown-fields" in rule

    def decode_object(value: Any, problems: Problems) -> Any:
        if type(value) is not dict:
            problems.wrong_type(path, "object", value)
            return value
        for name in required:
            if value.get(name) is None:
                problems.complain(join(path, name), "is required")
        copy = dict(zeros)
        for name, item in value.items():
            inner = below.get(name)
            if closed and inner is None:
                problems.complain(join(path, name), "is a forbidden property")
            elif item is not None:
                copy[name] = item if inner is None else inner(item, problems)
        return copy

    return decode_object


def map_decoder(rule: Object, path: str) -> Decoder:
    inner = decoder(rule["additionalProperties"], join(path, ANY_KEY))

    def decode_map(value: Any, problems: Problems) -> Any:
        if type(value) is not dict:
            problems.wrong_type(path, "object", value)
            return value
        copy = {}
        for key, item in value.items():
            if item is not None:
                problems.keys.append(key)
                copy[key] = inner(item, problems)
                problems.keys.pop()
        return copy

    return decode_map


def list_decoder(rule: Object, path: str) -> Decoder:
    inner = decoder(rule["items"], path) if "items" in rule else lambda item, _: item

    def decode_list(value: Any, problems: Problems) -> Any:
        if type(value) is not list:
            problems.wrong_type(path, "array", value)
            return value
        return [inner(item, problems) for item in value]

    return decode_list


def scalar_decoder(rule: Object, path: str) -> Decoder:
    name: str = rule["type"]
    wanted = str if name == "string" else bool
    # An instance stands alone or in a template: the ends of paths are the template's.
    whole = f"template.{path}"
    enum = next((values for end, values in ENUMS.items() if whole.endswith(f".{end}") or whole == end), None)

    def decode_scalar(value: Any, problems: Problems) -> Any:
        if type(value) is not wanted:
            problems.wrong_type(path, name, value)
        elif enum is not None and value not in enum:
            problems.complain(path, f"should be one of [{' '.join(enum)}]")
        return value

    return decode_scalar


def integer_decoder(rule: Object, path: str) -> Decoder:
    name = path.rpartition(".")[2]
    wanted = "uint32" if name in UINT32 else "uint" if name in UINT else rule.get("format", "int")
    held = RANGES[wanted]
    signed = "int32" if wanted == "int32" else "int64"

    def decode_integer(value: Any, problems: Problems) -> Any:
        if type(value) is int and value in held:
            return value
        if (type(value) is float and not value.is_integer()) or (type(value) is int and value not in RANGES["int64"]):
            problems.complain(path, f'must be of type {signed}: "float64"')
        elif type(value) in (int, float):
            problems.cannot_hold(path, value, wanted)
        else:
            problems.wrong_type(path, "integer", value)
        return value

    return decode_integer


def quantity_decoder(path: str) -> Decoder:
    def decode_quantity(value: Any, problems: Problems) -> Any:
        if type(value) not in (str, int, float):
            problems.wrong_type(path, "string,integer,number", value)
            return value
        try:
            return str(Quantity.parse(value))
        except ValueError as error:
            problems.cannot_read(str(error))
            return value

    return decode_quantity


def int_or_string_decoder(path: str) -> Decoder:
    # A port of a probe: its type has the handlers in a struct without a name of its own in the API.
    held_at = path.replace("Probe.", "Probe.Handler.")

    def decode_int_or_string(value: Any, problems: Problems) -> Any:
        if type(value) is float or (type(value) is int and value not in RANGES["int32"]):
            problems.cannot_hold(held_at, value, "int32")
        elif type(value) not in (str, int):
            problems.wrong_type(path, "string,number", value)
        return value

    return decode_int_or_string


def is_metadata(path: str) -> bool:
    return path == "metadata" or path.endswith(".metadata")


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def without_nulls(value: Any) -> Any:
    """A copy of something that no schema describes, without what is null."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
