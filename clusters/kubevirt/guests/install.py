"""What the guests' process needs in the cluster: an identity that reads VMs and annotates pods, and no more."""

from virtflow.kube import Object, Resource
from virtflow.kube.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, NAMESPACES, SERVICE_ACCOUNTS

__all__ = ["NAMESPACE", "SERVICE_ACCOUNT", "manifests"]

NAMESPACE = "virtflow-system"
SERVICE_ACCOUNT = "guests"
ROLE = "virtflow-guests"


def manifests() -> list[tuple[Resource, Object]]:
    """Objects for `KubeClient.apply`, in the order they are to be applied."""
    read = ["get", "list", "watch"]
    rules = [
        {
            "apiGroups": ["kubevirt.io"],
            "resources": ["virtualmachineinstances", "virtualmachineinstancereplicasets"],
            "verbs": read,
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": [*read, "patch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE}
    subject = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}
    return [
        (NAMESPACES, {"metadata": {"name": NAMESPACE}}),
        (SERVICE_ACCOUNTS, {"metadata": {"name": SERVICE_ACCOUNT, "namespace": NAMESPACE}}),
        (CLUSTER_ROLES, {"metadata": {"name": ROLE}, "rules": rules}),
        (CLUSTER_ROLE_BINDINGS, {"metadata": {"name": ROLE}, "roleRef": role, "subjects": [subject]}),
    ]
