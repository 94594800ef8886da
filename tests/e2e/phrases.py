"""What the text of a step is made of: words, and things in quotation marks.

Some of those can be wrong before anything is started: each knows of itself what.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

from pytest_bdd import parsers

from virtflow.errors import InputError
from virtflow.tenant_files import check_name, load_tenant
from workflows.access_models import Door, Withdrawal
from workflows.models import Bearer

__all__ = ["ACTS", "KINDS", "PROGRAMS", "Checked", "Manifest", "TenantFile", "TenantName", "phrase"]

KINDS = {
    "virtual machines": "virtualmachines",
    "replica sets": "virtualmachineinstancereplicasets",
    "secrets": "secrets",
    "pods": "pods",
}
ACTS = {
    "read the secret": ("get", "secrets"),
    "read the virtual machine": ("get", "virtualmachines"),
    "stop the virtual machine": ("update", "virtualmachines/stop"),
}
"""The matrix' words for what people call otherwise."""

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "virt-api",
    "virt-controller",
    "gateway",
)
"""What of a cluster can be away for a while, and a virtual machine be created all the same."""


class Checked(str):
    """A text in quotation marks that may be wrong."""

    __slots__ = ()

    def fault(self, features: Path) -> str:
        """What is wrong with it, and what to do, given the features' folder; nothing if it can be used."""
        raise NotImplementedError


class _File(Checked):
    __slots__ = ()
    FOLDER: ClassVar[str]
    WHAT: ClassVar[str]

    def fault(self, features: Path) -> str:
        folder = features / self.FOLDER
        if (folder / self).is_file():
            return ""
        names = [file.name for file in folder.glob("*")]
        nearest = "".join(f" Is it {name}?" for name in get_close_matches(self, names, n=1))
        return f"There is no {self.WHAT} {self} in {_short(folder)}.{nearest}"


class Manifest(_File):
    """The name of a file in the features' folder `manifests`."""

    __slots__ = ()
    FOLDER = "manifests"
    WHAT = "manifest"


class TenantFile(_File):
    """The name of a file in the features' folder `tenants`."""

    __slots__ = ()
    FOLDER = "tenants"
    WHAT = "tenant file"

    def fault(self, features: Path) -> str:
        if missing := super().fault(features):
            return missing
        try:
            load_tenant(features / self.FOLDER / self)
        except InputError as error:
            return str(error)
        return ""


class TenantName(Checked):
    """What a tenant is called: its namespace and users are called after it."""

    __slots__ = ()

    def fault(self, features: Path) -> str:
        try:
            check_name(self)
        except ValueError as error:
            return f"A tenant cannot be called so: {error}."
        return ""


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def quoted_name(text: str) -> str:
    return text


def quoted_manifest(text: str) -> Manifest:
    return Manifest(text)


def quoted_tenant_file(text: str) -> TenantFile:
    return TenantFile(text)


def quoted_tenant_name(text: str) -> TenantName:
    return TenantName(text)


def one_of(words: Iterable[str]) -> Callable[[str], str]:
    """Any other word is no step."""

    def word(text: str) -> str:
        return text

    word.pattern = "|".join(sorted(words, key=len, reverse=True))  # type: ignore[attr-defined]
    return word


QUOTED = {
    "Name": quoted_name,
    "Manifest": quoted_manifest,
    "TenantFile": quoted_tenant_file,
    "TenantName": quoted_tenant_name,
}
for quoted in QUOTED.values():
    quoted.pattern = r'[^"]+'  # type: ignore[attr-defined]  # where `parse` looks for it
WORDS = {
    "Door": one_of(Door),
    "Bearer": one_of(Bearer),
    "Withdrawal": one_of(Withdrawal),
    "Act": one_of(ACTS),
    "Kind": one_of(KINDS),
    "Program": one_of(PROGRAMS),
}


def phrase(text: str) -> parsers.parse:
    """A step's text. A {…:Name} ends at its quotation mark: else one step's text would match another's, too."""
    return parsers.parse(text, extra_types=QUOTED | WORDS)
