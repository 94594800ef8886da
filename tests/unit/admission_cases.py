"""The recorded admission cases, for the tests of virt-api alone and behind a kube-apiserver."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from virtflow.kube import Object

__all__ = ["CASES", "Case", "merged"]


@dataclass(frozen=True)
class Case:
    """One manifest and what is answered to it; see admission_cases.yaml for the fields."""

    case: str
    kind: str
    name: str
    spec: Object
    by: str | None = None
    message: str = ""
    field: str | None = None
    code: int = 422
    warning: str | None = None
    unknown_field: str | None = None

    def manifest(self, namespace: str) -> Object:
        return {
            "apiVersion": "kubevirt.io/v1",
            "kind": self.kind,
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": self.spec,
        }


def merged(base: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386) applied."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def load() -> list[Case]:
    text = (Path(__file__).parent / "admission_cases.yaml").read_text()
    document = yaml.safe_load(text)
    cases = []
    for number, entry in enumerate(document["cases"]):
        kind = entry.pop("kind", "VirtualMachine")
        spec = merged(document["base"][kind], entry.pop("merge", {}))
        cases.append(Case(kind=kind, name=entry.pop("name", f"case-{number}"), spec=spec, **entry))
    return cases


CASES = load()
