"""KubeVirt's custom resources: the single source of what an object may look like.

The schemas have every field of KubeVirt 1.9's API with its type and constraints, but for descriptions.

The kube-apiserver prunes and checks objects by these schemas; virt-api's webhooks check by the very same ones
before it, as KubeVirt's do, so that a missing field has one owner and two voices. The three kinds share the
instance's spec, which the API has no way to say: here a definition is written once and taken in by
`{$ref: Name}`, resolved on loading.
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from virtflow.kube import Object

__all__ = ["load_crds", "schema"]

FOLDER = Path(__file__).parent
KINDS = ("virtualmachine", "virtualmachineinstance", "virtualmachineinstancereplicaset")


@cache
def load_crds() -> tuple[Object, ...]:
    """The CustomResourceDefinitions, ready to apply. Shared: not to be changed."""
    definitions: dict[str, Any] = {}
    for path in sorted((FOLDER / "definitions").glob("*.yaml")):
        definitions |= yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    return tuple(
        resolve(yaml.load((FOLDER / f"{name}.yaml").read_text(), Loader=yaml.CSafeLoader), definitions)
        for name in KINDS
    )


@cache
def schema(kind: str) -> Object:
    """The OpenAPI schema of a kind. Raises `KeyError` for a kind that is not KubeVirt's."""
    schemas: dict[str, Object] = {
        crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in load_crds()
    }
    return schemas[kind]


def resolve(node: Any, definitions: dict[str, Any]) -> Any:
    """The same YAML with every `{$ref: Name}` replaced by what it names."""
    if isinstance(node, dict):
        if "$ref" in node:
            return resolve(definitions[node["$ref"]], definitions)
        return {key: resolve(value, definitions) for key, value in node.items()}
    if isinstance(node, list):
        return [resolve(item, definitions) for item in node]
    return node
