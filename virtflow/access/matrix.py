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

__all__ = [
    "OWN",
    "PLATFORM",
    "VERBS",
    "WHOLE_CLUSTER",
    "Cell",
    "Target",
    "cells",
    "expected",
    "find_target",
    "homes",
    "place_name",
]

READS = ("get", "list", "watch")
WRITES = ("create", "update", "patch", "delete", "deletecollection")
VERBS = (*READS, *WRITES)
OFFERED = frozenset({"get", "list", "create", "update", "delete"})
"""By the gateway. Across the whole cluster it has `list` alone."""
CLUSTER_WIDE = frozenset({"list", "watch", "create", "deletecollection"})
"""What the kube-apiserver answers without a namespace: the last two only ever by a refusal, but RBAC comes first."""

PLATFORM = ("default", "kube-system", "kubevirt", "virtflow-system")
"""Namespaces that are no tenant's, and hold what is nobody's business."""
WHOLE_CLUSTER = ""
"""The place that is no namespace."""
OWN = "own"
"""What the tenant's own namespace is called in a table. Another's has its tenant's name."""
EVERYWHERE = "whole cluster"


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
    account: str
    """Of the actor's users: a service account's name."""
    target: Target
    verb: str
    place: str

    @property
    def user(self) -> str:
        """As Kubernetes names it."""
        return user_name(self.actor, self.account)


def user_name(tenant: Tenant, account: str) -> str:
    return f"system:serviceaccount:{tenant.namespace}:{account}"


def homes(tenants: Iterable[Tenant]) -> dict[str, str]:
    """Every user, as Kubernetes names it, with its tenant's namespace."""
    return {user_name(tenant, account): tenant.namespace for tenant in tenants for account in tenant.users}


def find_target(name: str) -> Target:
    """The target of this name. Raises KeyError if the matrix has none."""
    return {str(target): target for target in TARGETS}[name]


def cells(actor: Tenant, tenants: Iterable[Tenant]) -> Iterator[Cell]:
    """All requests of one tenant's users, in rows: each target in its own namespace, in those of the others and of
    the platform, and in the whole cluster."""
    others = [each.namespace for each in tenants if each.namespace != actor.namespace]
    for target in TARGETS:
        for place in (actor.namespace, *others, *PLATFORM, WHOLE_CLUSTER):
            for verb in target.verbs:
                if place != WHOLE_CLUSTER or (verb in CLUSTER_WIDE and not target.subresource):
                    yield from (Cell(actor, account, target, verb, place) for account in actor.users)


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
    """The place as a table says it: their own namespace, a tenant's, the platform's, the cluster."""
    if cell.place == cell.actor.namespace:
        return OWN
    names = {each.namespace: each.name for each in tenants}
    return names.get(cell.place, cell.place) or EVERYWHERE
