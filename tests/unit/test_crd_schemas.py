"""The schemas have every field of KubeVirt's API, of the right type, and no other."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.api.decoding import decode
from clusters.kubevirt.api.refusals import Refused
from clusters.kubevirt.crds import schema
from tests.unit.schema_values import values
from virtflow.kube import Object

KINDS = ("VirtualMachine", "VirtualMachineInstance", "VirtualMachineInstanceReplicaSet")
SCALARS = {"string", "boolean", "integer", "quantity", "int-or-string", "time", "metadata", "object"}


@cache
def api() -> dict[str, dict[str, str]]:
    """The API's types: each field's name, with a "!" if it is required, and its type."""
    text = yaml.safe_load((Path(__file__).parent / "kubevirt_fields.yaml").read_text())
    return {name: dict(field.split(" ") for field in fields.split(", ")) for name, fields in text.items()}


def fields_of_type(name: str, path: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a type, however deep: where it is, and what it holds."""
    shape, inner = "", name
    while match := re.fullmatch(r"\[(.+)\]|\{(.+)\}", inner):
        inner = match[1] or match[2]
        shape += "[]" if match[1] else "{}"
    if inner in SCALARS:
        yield path + shape, inner
        return
    yield path + shape, "object"
    for field, below in api()[inner].items():
        yield from fields_of_type(below, f"{path}{shape}.{field}")


def fields_of_schema(rule: Object, path: str = "") -> Iterator[tuple[str, str]]:
    if rule.get("type") == "array":
        yield from fields_of_schema(rule["items"], f"{path}[]")
    elif "additionalProperties" in rule:
        yield from fields_of_schema(rule["additionalProperties"], f"{path}{{}}")
    else:
        yield path, type_of(rule, path)
        for name, below in rule.get("properties", {}).items():
            required = "!" if name in rule.get("required", ()) else ""
            yield from fields_of_schema(below, f"{path}.{name}{required}")


def type_of(rule: Object, path: str) -> str:
    if path.endswith(".metadata"):
        return "metadata"
    if "x-kubernetes-int-or-string" in rule:
        return "quantity" if "pattern" in rule else "int-or-string"
    if rule.get("format") == "date-time":
        return "time"
    found: str = rule["type"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_of_the_api_is_in_the_schema_and_no_other(kind: str) -> None:
    found = dict(fields_of_schema(schema(kind)))
    wanted = dict(fields_of_type(kind))
    assert found == wanted


CONSTRAINTS = (
    *("default", "enum", "nullable", "maxItems", "maxLength", "minimum", "maximum"),
    *(f"x-kubernetes-{name}" for name in ("preserve-unknown-fields", "list-map-keys")),
)


def constraints(rule: Object, path: str) -> Iterator[tuple[str, Object]]:
    found = {name.removeprefix("x-kubernetes-"): rule[name] for name in CONSTRAINTS if name in rule}
    if rule.get("x-kubernetes-list-type") == "set":
        found["list-type"] = "set"
    if "x-kubernetes-validations" in rule:
        found["validations"] = [check["rule"] for check in rule["x-kubernetes-validations"]]
    if found:
        yield path, found
    for name, below in rule.get("properties", {}).items():
        yield from constraints(below, f"{path}.{name}".lstrip("."))
    if "items" in rule:
        yield from constraints(rule["items"], f"{path}[]")


@pytest.mark.parametrize(("kind", "part"), [("VirtualMachine", ""), ("VirtualMachineInstance", "status")])
def test_what_is_asked_of_a_value_beside_its_type(kind: str, part: str) -> None:
    wanted = yaml.safe_load((Path(__file__).parent / "kubevirt_constraints.yaml").read_text())[kind]
    rule = schema(kind)["properties"][part] if part else schema(kind)
    assert dict(constraints(rule, part)) == wanted


@settings(max_examples=60)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_whatever_the_schema_takes_can_be_read(data: st.DataObject, kind: str) -> None:
    spec = data.draw(values(schema(kind)["properties"]["spec"], "template.spec"))
    assert decode(kind, {"metadata": {}, "spec": spec})["spec"].keys() == spec.keys()


KEYS = ("metadata", "app.metadata", "container.imagePullPolicy", "httpGet.scheme", "*", ".*", "a.*.b")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("field", ["nodeSelector", "labels", "annotations"])
def test_a_key_of_a_map_is_the_user_s_own(field: str, key: str) -> None:
    def instance(value: object) -> Object:
        return {"spec" if field == "nodeSelector" else "metadata": {field: {key: value}}}

    part = next(iter(instance("")))
    spec: Object = {"domain": {"devices": {}}}
    template = instance("any value") | ({} if part == "spec" else {"spec": spec})
    template["spec"] = spec | template["spec"]
    vm = {"metadata": {}, "spec": {"running": True, "template": template}}
    assert decode("VirtualMachine", vm)["spec"]["template"][part][field] == {key: "any value"}
    template[part][field] = {key: 1}
    with pytest.raises(
        Refused, match=re.escape(f'template.{part}.{field}.{key} in body must be of type string: "number"')
    ):
        decode("VirtualMachine", vm)


@pytest.mark.parametrize("name", ["*", "a.*"])
def test_an_unknown_field_is_told_by_its_name_whatever_it_is(name: str) -> None:
    template = {"metadata": {name: "x"}, "spec": {"domain": {"devices": {}}}}
    with pytest.raises(Refused, match=re.escape(f"spec.template.metadata.{name} in body is a forbidden property")):
        decode("VirtualMachine", {"metadata": {}, "spec": {"running": True, "template": template}})
