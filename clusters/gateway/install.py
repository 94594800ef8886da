"""What the gateway needs in a cluster: a name of its own, and the three rights its work takes.

Impersonation is the dangerous one. Whether one may take a service account's name is authorized in that account's
namespace, so the right is bound in each tenant's (`tenant_binding`, by whoever makes the tenant) and nowhere else:
with the whole cluster's, the gateway could become one of kube-system's controllers, who may do nearly anything.
It is for service accounts alone. Sent a service account's name and nothing else, the kube-apiserver fills in that
account's own groups, so the gateway needs no right over `groups`, `uids` or `userextras`, and cannot become a user
or a member of system:masters. What it gives up: the tenant's uid and the token's credential id are absent from the
audit event of the write; the request id leads to the TokenReview that has them.
"""

from collections.abc import Mapping

from virtflow.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
)

__all__ = ["NAMESPACE", "SERVICE_ACCOUNT", "TENANT_ROLE", "manifests", "tenant_binding"]

NAMESPACE = "virtflow-system"
SERVICE_ACCOUNT = "iam-gateway"
ROLE = "virtflow:iam-gateway"
TENANT_ROLE = "virtflow-tenant-impersonator"
"""ClusterRole that `tenant_binding` binds: to act as any service account of the tenant's namespace."""

SUBJECT = {"kind": SERVICE_ACCOUNTS.kind, "namespace": NAMESPACE, "name": SERVICE_ACCOUNT}


def manifests() -> list[tuple[Resource, Object]]:
    """Objects for `KubeClient.apply`, in the order they depend on one another."""
    reviews = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    impersonation = [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]}]
    return [
        (NAMESPACES, {"metadata": {"name": NAMESPACE}}),
        (SERVICE_ACCOUNTS, {"metadata": {"name": SERVICE_ACCOUNT, "namespace": NAMESPACE}}),
        (CLUSTER_ROLES, {"metadata": {"name": ROLE}, "rules": reviews}),
        (CLUSTER_ROLE_BINDINGS, {"metadata": {"name": ROLE}, "roleRef": _role_ref(ROLE), "subjects": [SUBJECT]}),
        (CLUSTER_ROLES, {"metadata": {"name": TENANT_ROLE}, "rules": impersonation}),
    ]


def tenant_binding(labels: Mapping[str, str]) -> Object:
    """The RoleBinding that makes a namespace a tenant's: with it there, the gateway may act for its accounts.

    Make it before the account's own, so that whoever is let in by the one has the other too.
    """
    metadata = {"name": SERVICE_ACCOUNT, "labels": dict(labels)}
    return {"metadata": metadata, "roleRef": _role_ref(TENANT_ROLE), "subjects": [SUBJECT]}


def _role_ref(name: str) -> Object:
    return {"apiGroup": CLUSTER_ROLES.group, "kind": CLUSTER_ROLES.kind, "name": name}
