"""The recorded situations, and the deviations from them that are known."""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import yaml

from tests.conformance.compare import Account
from virtflow.kube import Object

__all__ = ["Deviation", "Situation", "chains", "load_deviations", "load_situations"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Situation:
    name: str
    title: str
    action: Object
    """`{create: manifest}`, `{patch: object, with: patch}`, perhaps of a `subresource`, or `{delete: object}`."""
    account: Account
    after: str | None = None
    """The situation that this one begins with the end of; without one, an empty namespace."""
    before: tuple[Object, ...] = ()
    """What has to be there first."""


@cache
def load_situations() -> list[Situation]:
    """In an order in which they can be played."""
    return [_load(file) for file in sorted((HERE / "situations").glob("*.yaml"))]


def _load(file: Path) -> Situation:
    read = yaml.safe_load(file.read_text())
    before = tuple(read.pop("before", ()))
    about = {name: read.pop(name) for name in ("title", "action", "after") if name in read}
    return Situation(name=file.stem, before=before, account=read, **about)


def chains() -> list[list[Situation]]:
    """Situations that go on where another one ended, together: each chain has a namespace of its own."""
    found: list[list[Situation]] = []
    for situation in load_situations():
        chain = next((chain for chain in found if chain[-1].name == situation.after), None)
        if chain is None:
            found.append([situation])
        else:
            chain.append(situation)
    return found


@dataclass(frozen=True)
class Deviation:
    """A difference that is known and accepted. docs/DEVIATIONS.md has it, too, in the words of `documented`."""

    situation: str
    """A pattern of names."""
    difference: str
    """A regular expression of the whole line."""
    reason: str
    documented: str

    def explains(self, situation: str, difference: str) -> bool:
        return fnmatch(situation, self.situation) and re.fullmatch(self.difference, difference) is not None


def load_deviations(file: Path = HERE / "deviations.yaml") -> list[Deviation]:
    return [Deviation(**each) for each in yaml.safe_load(file.read_text())]
