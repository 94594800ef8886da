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
minutes later, and of a quota or a role on something that does not exist it says nothing: nobody is held to it then,
or let in. So what is almost a known kind's or group's name is refused. Else it may be one that only some cluster has.
"""

import re
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from clusters.kubevirt.api.quantities import Quantity
from virtflow.errors import InputError
from virtflow.kube.resources import KNOWN
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
GROUPS = tuple({resource.group for resource in KNOWN})
PLURALS = tuple({resource.plural for resource in KNOWN})
SINGULARS = {resource.kind.lower(): resource.plural for resource in KNOWN}
EXTENDED = re.compile(r"hugepages-|[a-z0-9.-]+/")
"""What only some nodes offer."""
ALIKE = 0.92
"""A word so like a known one is taken for a mistake in it."""
RISING = ("min", "defaultRequest", "default", "max")
"""A limit's bounds: each at most the next."""
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
    if resource.startswith("count/"):
        plural, _, group = resource.removeprefix("count/").partition(".")
        _resource(plural)
        _group(group)
    return resource


def _group(group: str) -> str:
    if group not in GROUPS and (alike := get_close_matches(group, GROUPS, n=1, cutoff=ALIKE)):
        raise ValueError(f"there is no API group {group!r}. Is it {alike[0]}?")
    return group


def _resource(resource: str) -> str:
    plural = resource.partition("/")[0]
    alike = SINGULARS.get(plural) or next(iter(get_close_matches(plural, PLURALS, n=1, cutoff=ALIKE)), "")
    if plural not in PLURALS and alike:
        raise ValueError(f"there is no resource {plural!r}. Is it {alike}?")
    return resource


def _nearest(word: str, known: tuple[str, ...]) -> str:
    return "".join(f" Is it {name}?" for name in get_close_matches(word, known, n=1))


Name = Annotated[str, AfterValidator(check_name)]
Amount = Annotated[str, BeforeValidator(_quantity)]
Verb = Annotated[str, AfterValidator(_verb)]
Limited = Annotated[str, AfterValidator(_limited)]
Group = Annotated[str, AfterValidator(_group)]
Kind = Annotated[str, Field(min_length=1), AfterValidator(_resource)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Rule(_Strict):
    apiGroups: list[Group] = Field(min_length=1)  # noqa: N815 - Kubernetes' own, as all of these
    resources: list[Kind] = Field(min_length=1)
    verbs: list[Verb] = Field(min_length=1)


class _Limit(_Strict):
    type: Literal["Container", "Pod", "PersistentVolumeClaim"]
    max: dict[str, Amount] = {}
    min: dict[str, Amount] = {}
    default: dict[str, Amount] = {}
    defaultRequest: dict[str, Amount] = {}  # noqa: N815
    maxLimitRequestRatio: dict[str, Amount] = {}  # noqa: N815

    @model_validator(mode="after")
    def _defaults_are_for_containers(self) -> Self:
        if self.type != "Container" and (self.default or self.defaultRequest):
            raise ValueError(f"a {self.type} has no default: give it to the type Container, or remove it")
        return self

    @model_validator(mode="after")
    def _resources_are_its_own(self) -> Self:
        own = ("storage",) if self.type == "PersistentVolumeClaim" else COMPUTE
        for bound in (*RISING, "maxLimitRequestRatio"):
            for resource in getattr(self, bound):
                if resource not in own and not EXTENDED.match(resource):
                    hint = f".{_nearest(resource, own)}" if _nearest(resource, own) else f": it has {', '.join(own)}"
                    raise ValueError(f"{bound}: a {self.type} has no {resource!r}{hint}")
        return self

    @model_validator(mode="after")
    def _bounds_rise(self) -> Self:
        for lower, upper in combinations(RISING, 2):
            least, most = getattr(self, lower), getattr(self, upper)
            for resource in least.keys() & most.keys():
                if Quantity.parse(least[resource]) > Quantity.parse(most[resource]):
                    raise ValueError(
                        f"{lower} is {least[resource]} {resource}, which is above {upper}, {most[resource]}"
                    )
        return self


class TenantFile(_Strict):
    """The schema of a file."""

    namespace: Name = ""
    users: list[Name] = Field(default=["user"], min_length=1)
    role: list[_Rule] = [
        _Rule(apiGroups=rule.api_groups, resources=rule.resources, verbs=rule.verbs) for rule in OPERATOR
    ]
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
        rules = [PolicyRule(rule.apiGroups, rule.resources, rule.verbs) for rule in self.role]
        limits: list[dict[str, Any]] = [limit.model_dump(exclude_unset=True) for limit in self.limits]
        return TenantSpec(self.users, rules, dict(self.quota), limits)


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
        case "list_type":
            message = "it must be a list, [] an empty one"
        case "model_type":
            message = "it must be a mapping of keys and values"
    return f"line {line_of(text, keys)}{f', {where}' if where else ''}: {message}".rstrip(".")
