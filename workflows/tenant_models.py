"""Tenants as data: what a platform grants to one, and what exists when it has been granted.

Plain data, as in `models.py`: a user is a reference, and never a token.
"""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["OPERATOR", "PolicyRule", "Tenant", "TenantOrder", "TenantSpec"]


@dataclass(frozen=True)
class PolicyRule:
    """A rule of a Role (rbac.authorization.k8s.io/v1): these verbs on these resources of these groups."""

    api_groups: list[str]
    resources: list[str]
    """Plural, or `plural/subresource`."""
    verbs: list[str]


OPERATOR = [PolicyRule(["kubevirt.io"], ["virtualmachines"], ["get", "list", "create", "update"])]
"""What a tenant may do of which nothing else is said."""


@dataclass(frozen=True)
class TenantSpec:
    """What a platform says of a tenant, in YAML."""

    users: list[str] = field(default_factory=lambda: ["user"])
    """Each is the service account `<tenant>-<user>` in the tenant's namespace. All have the same role."""
    role: list[PolicyRule] = field(default_factory=lambda: list(OPERATOR))
    quota: dict[str, str] = field(default_factory=dict)
    """`spec.hard` of a ResourceQuota; none if empty."""
    limits: list[dict[str, Any]] = field(default_factory=list)
    """`spec.limits` of a LimitRange; none if empty."""


@dataclass(frozen=True)
class TenantOrder:
    """A tenant to be: its name in the feature, and the namespace that is its own in this scenario."""

    name: str
    namespace: str
    labels: dict[str, str]
    spec: TenantSpec = field(default_factory=TenantSpec)


@dataclass(frozen=True)
class Tenant:
    """A tenant that exists. Its users are references: whoever acts for one mints a token of its own."""

    name: str
    namespace: str
    users: list[str]
    """Service accounts' names, in the tenant's namespace."""
    role: list[PolicyRule] = field(default_factory=lambda: list(OPERATOR))
    """What each of them may do there. Elsewhere it is nothing."""

    @property
    def user(self) -> str:
        """The first of them, who acts where nobody is named."""
        return self.users[0]
