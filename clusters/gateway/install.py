"""What the gateway needs in a cluster: a name of its own, and the three rights its work takes.

Impersonation is the dangerous one. Of its forms this is the narrowest that every supported Kubernetes has:
`impersonate` on service accounts alone. Sent a service account's name and nothing else, the kube-apiserver
fills in that account's own groups, so the gateway needs no right over `groups`, `uids` or `userextras`, and
cannot become a user or a member of system:masters. What it gives up: the tenant's uid and the token's
credential id are absent from the audit event of the write; the request id leads to the TokenReview that has
them.
"""

from virtflow.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
)

__all__ = ["NAMESPACE", "SERVICE_ACCOUNT", "manifests"]

NAMESPACE = "virtflow-system"
SERVICE_ACCOUNT = "iam-gateway"
ROLE = "virtflow:iam-gateway"


def manifests() -> list[tuple[Resource, Object]]:
    """Objects for `KubeClient.apply`, in the order they depend on one another."""
    rules = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]},
    ]
    role = {"apiGroup": CLUSTER_ROLES.group, "kind": CLUSTER_ROLES.kind, "name": ROLE}
    subject = {"kind": SERVICE_ACCOUNTS.kind, "namespace": NAMESPACE, "name": SERVICE_ACCOUNT}
    return [
        (NAMESPACES, {"metadata": {"name": NAMESPACE}}),
        (SERVICE_ACCOUNTS, {"metadata": {"name": SERVICE_ACCOUNT, "namespace": NAMESPACE}}),
        (CLUSTER_ROLES, {"metadata": {"name": ROLE}, "rules": rules}),
        (CLUSTER_ROLE_BINDINGS, {"metadata": {"name": ROLE}, "roleRef": role, "subjects": [subject]}),
    ]
