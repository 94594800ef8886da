"""A tenant as its file describes it: `features/tenants/<name>.yaml`, every key optional.

    namespace: bank          # how the name of its namespace begins, before the tenant's name
    users: [alice, bob]      # service accounts <tenant>-alice and <tenant>-bob; else one, `user`
    role:                    # rules of a Role; else get, list, create, update of virtual machines
      - apiGroups: [kubevirt.io]
        resources: [virtualmachines]
        verbs: [get, list]
    quota:                   # spec.hard of a ResourceQuota; else none
      pods: 4
      requests.memory: 8Gi
    limits:                  # spec.limits of a LimitRange; else none
      - type: Container
        default: {cpu: "2"}

It is held against a schema before anything starts. The kube-apiserver would refuse most of what is wrong as well, but
minutes later, and of a quota on something that does not exist it says nothing: nobody is held to it then.
"""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from clusters.kubevirt.api.quantities import Quantity
from virtflow.errors import InputError
from virtflow.safe_yaml import line_of, read_yaml
from workflows.tenant_models import OPERATOR, PolicyRule, TenantSpec

__all__ = ["TenantFile", "check_name", "load_tenant"]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LONGEST_NAME = 26
"""A namespace's name has 63 letters: the file's word, the tenant's name and eight of the scenario's, joined by -."""
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*")
COMPUTE = ("cpu", "memory", "ephemeral-storage")
COUNTED = (
    *("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"),
    *("persistentvolumeclaims", "services.nodeports", "services.loadbalancers"),
)
LIMITED = (
    *COMPUTE,
    *(f"{kind}.{resource}" for kind in ("requests", "limits") for resource in COMPUTE),
    "requests.storage",
    *COUNTED,
)
"""What a ResourceQuota knows by name. Any kind can be counted by `count/<plural>.<group>`."""
QUALIFIED = re.compile(r"(count/[a-z0-9]+(\.[a-z0-9-]+)*|requests\.[a-z0-9.-]+/[A-Za-z0-9._-]+)")


def check_name(name: str) -> str:
    """The name, which becomes part of others'. Raises ValueError for one that Kubernetes would not take."""
    if not LABEL.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{name!r} is no name: write at most {LONGEST_NAME} of a-z, 0-9 and -, a letter or digit first and last"
        )
    return name


def _quantity(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('write a quantity, such as 4, "500m" or 8Gi')
    try:
        quantity = Quantity.parse(value)
    except ValueError as error:
        raise ValueError(f'{value!r} is no quantity ({error}): write one such as 4, "500m" or 8Gi') from error
    if quantity.amount < 0:
        raise ValueError(f"{value!r} is below zero: write at least 0")
    return str(value)


def _verb(verb: str) -> str:
    if verb not in VERBS:
        raise ValueError(f"{verb!r} is no verb: write some of {', '.join(VERBS)}.{_nearest(verb, VERBS)}")
    return verb


def _limited(resource: str) -> str:
    if resource not in LIMITED and not QUALIFIED.fullmatch(resource):
        hint = _nearest(resource, LIMITED) or " Any kind is counted by count/<plural>.<group>."
        raise ValueError(f"a quota knows no {resource!r}.{hint}")
    return resource


def _nearest(word: str, known: tuple[str, ...]) -> str:
    return "".join(f" Is it {name}?" for name in get_close_matches(word, known, n=1))


Name = Annotated[str, AfterValidator(check_name)]
Amount = Annotated[str, BeforeValidator(_quantity)]
Verb = Annotated[str, AfterValidator(_verb)]
Limited = Annotated[str, AfterValidator(_limited)]
Word = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Rule(_Strict):
    apiGroups: list[str] = Field(min_length=1)  # noqa: N815 - Kubernetes' own, as all of these
    resources: list[Word] = Field(min_length=1)
    verbs: list[Verb] = Field(min_length=1)


class _Limit(_Strict):
    type: Literal["Container", "Pod", "PersistentVolumeClaim"]
    max: dict[str, Amount] | None = None
    min: dict[str, Amount] | None = None
    default: dict[str, Amount] | None = None
    defaultRequest: dict[str, Amount] | None = None  # noqa: N815
    maxLimitRequestRatio: dict[str, Amount] | None = None  # noqa: N815

    @model_validator(mode="after")
    def _defaults_are_for_containers(self) -> Self:
        if self.type != "Container" and (self.default or self.defaultRequest):
            raise ValueError(f"a {self.type} has no default: give it to the type Container, or remove it")
        return self


class TenantFile(_Strict):
    """The schema of a file."""

    namespace: Name | None = None
    users: list[Name] = Field(default=["user"], min_length=1)
    role: list[_Rule] | None = None
    quota: dict[Limited, Amount] = {}
    limits: list[_Limit] = []

    @model_validator(mode="after")
    def _each_user_once(self) -> Self:
        if len(set(self.users)) < len(self.users):
            raise ValueError("a user is there twice among users: remove one")
        return self

    @model_validator(mode="after")
    def _counts_are_whole(self) -> Self:
        for resource, amount in self.quota.items():
            if (resource in COUNTED or resource.startswith("count/")) and Quantity.parse(amount).amount % 1:
                raise ValueError(f"{amount} {resource} cannot be counted: write a whole number")
        return self

    @property
    def spec(self) -> TenantSpec:
        rules = [PolicyRule(rule.apiGroups, rule.resources, rule.verbs) for rule in self.role or ()]
        limits: list[dict[str, Any]] = [limit.model_dump(exclude_none=True) for limit in self.limits]
        return TenantSpec(self.users, list(OPERATOR) if self.role is None else rules, dict(self.quota), limits)


def load_tenant(file: Path) -> TenantFile:
    """What the file says. Raises InputError, which names every fault with its line and path in the file."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        said = read_yaml(text)
        return TenantFile.model_validate({} if said is None else said)
    except ValidationError as error:
        faults = [_fault(text, fault["loc"], fault["msg"], fault["type"]) for fault in error.errors()]
    except OSError as error:
        faults = [f"it cannot be read: {error.strerror}"]
    except RecursionError:
        faults = ["it is nested too deeply"]
    except ValueError as error:  # a UnicodeDecodeError is one, too
        faults = [" ".join(str(error).split())]
    raise InputError(f"{file.name} describes no tenant: {'; '.join(faults)}.")


def _fault(text: str, path: tuple[int | str, ...], message: str, kind: str) -> str:
    # Pydantic calls the key of a mapping [key].
    keys = [key for key in path if key != "[key]"]
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
    match kind:
        case "extra_forbidden":
            known = get_close_matches(
                str(keys[-1]), [*TenantFile.model_fields, *_Rule.model_fields, *_Limit.model_fields]
            )
            message = "there is no such key: remove it" + "".join(f", or is it {name}?" for name in known[:1])
        case "value_error":
            message = message.removeprefix("Value error, ")
        case "model_type":
            message = "it must be a mapping of keys and values"
    return f"line {line_of(text, keys)}{f', {where}' if where else ''}: {message}".rstrip(".")
