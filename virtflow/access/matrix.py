"""Every request a tenant can think of: resources by verbs by places, and what must become of it at each door.

What is expected follows from the tenant's role alone, and from which tenant a namespace belongs to. What RBAC objects
are in the cluster is not asked: that would only find out whether RBAC works, and no binding too many.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from virtflow.access.role import allows
from virtflow.kube.resources import HPAS, PODS, SECRETS, VM_ACTIONS, VMIRS, VMIS, VMS, Resource
from workflows.access_models import Door, Outcome
from workflows.tenant_models import Tenant

__all__ = ["OWN", "VERBS", "WHOLE_CLUSTER", "Cell", "Target", "cells", "expected", "find_target", "place_name"]

READS = ("get", "list", "watch")
WRITES = ("create", "update", "patch", "delete", "deletecollection")
VERBS = (*READS, *WRITES)
OFFERED = frozenset({"get", "list", "create", "update", "delete"})
"""By the gateway. Across the whole cluster it has `list` alone."""
CLUSTER_WIDE = frozenset({"list", "watch", "create", "deletecollection"})
"""What the kube-apiserver answers without a namespace: the last two only ever by a refusal, but RBAC comes first."""

WHOLE_CLUSTER = ""
"""The place that is no namespace."""
OWN = "own"
"""What the tenant's own namespace is called in a table."""


@dataclass(frozen=True)
class Target:
    """A resource, or a subresource of one."""

    resource: Resource
    subresource: str = ""

    def __str__(self) -> str:
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural

    @property
    def verbs(self) -> tuple[str, ...]:
        return ("update",) if self.subresource else VERBS


TARGETS = (
    Target(VMS),
    *(Target(VM_ACTIONS, action) for action in ("start", "stop", "restart")),
    *(Target(resource) for resource in (VMIS, VMIRS, HPAS, SECRETS, PODS)),
)


@dataclass(frozen=True)
class Cell:
    """One request: who, what, and in which namespace."""

    actor: Tenant
    target: Target
    verb: str
    place: str

    @property
    def user(self) -> str:
        """As Kubernetes names it."""
        return f"system:serviceaccount:{self.actor.namespace}:{self.actor.user}"


def find_target(name: str) -> Target:
    """The target of this name. Raises KeyError if the matrix has none."""
    return {str(target): target for target in TARGETS}[name]


def cells(actor: Tenant, tenants: Iterable[Tenant]) -> Iterator[Cell]:
    """All requests of one tenant, in rows: each target in its own namespace, the others', and the whole cluster."""
    places = [actor.namespace, *(each.namespace for each in tenants if each.namespace != actor.namespace)]
    for target in TARGETS:
        for place in places:
            yield from (Cell(actor, target, verb, place) for verb in target.verbs)
        if not target.subresource:
            yield from (Cell(actor, target, verb, WHOLE_CLUSTER) for verb in VERBS if verb in CLUSTER_WIDE)


def expected(cell: Cell, door: Door) -> Outcome:
    """What must become of it, by the tenant's role and by what the door has."""
    if door is Door.GATEWAY and not is_offered(cell):
        return Outcome.NOT_OFFERED
    is_own = cell.place == cell.actor.namespace
    if is_own and allows(cell.actor.role, cell.target.resource.group, str(cell.target), cell.verb):
        return Outcome.ALLOWED
    return Outcome.DENIED


def is_offered(cell: Cell) -> bool:
    return cell.verb in OFFERED and (cell.place != WHOLE_CLUSTER or cell.verb == "list")


def place_name(cell: Cell, tenants: Iterable[Tenant]) -> str:
    """The place as people say it: their own, a tenant's, the cluster."""
    if cell.place == cell.actor.namespace:
        return OWN
    names = {each.namespace: each.name for each in tenants}
    return names[cell.place] if cell.place else "whole cluster"
