"""Objects made from a schema: any that it takes, for hypothesis, and the one that has every field."""

from typing import Any

from hypothesis import strategies as st

from clusters.kubevirt.api.decoding import ENUMS
from virtflow.kube import Object

__all__ = ["full", "values"]

UNSIGNED = ("cores", "sockets", "threads", "maxSockets", "supplementalPoolThreadCount", "spinlocks", "bootOrder")
QUANTITIES = ("1", "500m", "1Gi", "64Mi", "2k", "0")
NAMES = ("disk0", "default", "a", "b-1")
KEYS = (*NAMES, "metadata", "app.metadata", "containerDisk.imagePullPolicy", "tolerations.effect", "a.bootOrder")
"""Of labels, annotations, …: a user's own, whatever field they look like."""
CHECKED = {"path": "/data", "readOnly": True, "filesystemOverhead": "0.05"}
"""Values of fields that the schemas check by an expression or a pattern."""


def values(rule: Object, path: str = "template") -> st.SearchStrategy[Any]:
    """Any value that the schema takes; `path` is where it stands in a template."""
    if path.endswith(".metadata"):
        maps = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(NAMES), min_size=1, max_size=2)
        return st.fixed_dictionaries({"labels": maps, "annotations": maps})
    if rule.get("type") == "object":
        return objects(rule, path)
    if rule.get("type") == "array":
        return st.lists(values(rule["items"], path), max_size=1)
    return scalars(rule, path)


def scalars(rule: Object, path: str) -> st.SearchStrategy[Any]:
    name = path.rpartition(".")[2]
    if "x-kubernetes-int-or-string" in rule:
        return st.sampled_from(QUANTITIES if "pattern" in rule else ("http", 80))
    if rule["type"] == "integer":
        return st.integers(rule.get("minimum", 0 if name in UNSIGNED else -5), rule.get("maximum", 100))
    if name in CHECKED and rule.keys() & {"pattern", "x-kubernetes-validations"}:
        return st.just(CHECKED[name])
    if rule["type"] == "boolean":
        return st.booleans()
    enum = rule.get("enum") or next((found for end, found in ENUMS.items() if f".{path}".endswith(f".{end}")), None)
    return st.sampled_from(["2026-01-01T00:00:00Z"] if rule.get("format") == "date-time" else enum or NAMES)


def objects(rule: Object, path: str) -> st.SearchStrategy[Object]:
    if "additionalProperties" in rule:
        return st.dictionaries(st.sampled_from(KEYS), values(rule["additionalProperties"], path), max_size=2)
    fields = {name: field(part, f"{path}.{name}") for name, part in rule.get("properties", {}).items()}
    required = {name: fields[name] for name in rule.get("required", ())}
    if not fields:
        return st.just({})
    # A few of the others at a time: whole objects are large, and mostly refused for some reason or other.
    few = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)
    return few.flatmap(lambda names: st.fixed_dictionaries(required | {name: fields[name] for name in names}))


def field(rule: Object, path: str) -> st.SearchStrategy[Any]:
    """Made only when it is drawn: a schema has hundreds of fields."""
    return st.deferred(lambda: values(rule, path))


def full(rule: Object, name: str = "", extra: str | None = None) -> Any:
    """The value that has every field of the schema, and in each of its objects the field `extra`."""
    if name == "metadata":
        return {"labels": {"app": "test"}}
    if rule.get("type") == "array":
        return [full(rule["items"], "", extra)]
    if "additionalProperties" in rule:
        return {"key": full(rule["additionalProperties"], "", extra)}
    if rule.get("type") == "object":
        fields = {key: full(part, key, extra) for key, part in rule.get("properties", {}).items()}
        return fields | ({extra: 1} if extra else {})
    return full_scalar(rule, name)


def full_scalar(rule: Object, name: str) -> Any:
    if "enum" in rule:
        return rule["enum"][0]
    if rule.get("format") == "date-time":
        return "2026-01-01T00:00:00Z"
    plain: Object = {"string": "a", "boolean": True, "integer": rule.get("minimum", 1)}
    return CHECKED[name] if name in CHECKED and name != "path" else plain.get(rule.get("type", ""), "1")
