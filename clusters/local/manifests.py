"""What a local cluster holds beside Kubernetes' own objects and KubeVirt's: its nodes and metrics-server."""

from clusters.aggregation import aggregated_api
from virtflow.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NODES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    Object,
    Resource,
)

__all__ = ["metrics_server", "nodes"]

RESOURCE_METRICS_PATH = "/metrics/nodes/{nodeName}/metrics/resource"

Manifests = list[tuple[Resource, Object]]


def nodes(count: int) -> Manifests:
    """Nodes for kwok to play, with what virt-launcher pods ask of one."""
    room = {
        "cpu": "64",
        "memory": "256Gi",
        "ephemeral-storage": "1Ti",
        "pods": "1000",
        "devices.kubevirt.io/kvm": "1k",
        "devices.kubevirt.io/tun": "1k",
        "devices.kubevirt.io/vhost-net": "1k",
    }
    return [(NODES, _node(f"node-{number}", room)) for number in range(1, count + 1)]


def _node(name: str, room: dict[str, str]) -> Object:
    return {
        "metadata": {
            "name": name,
            "annotations": {
                "kwok.x-k8s.io/node": "fake",
                # Where metrics-server finds the figures on kwok's one port for all nodes.
                "metrics.k8s.io/resource-metrics-path": RESOURCE_METRICS_PATH.format(nodeName=name),
            },
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
                "kubevirt.io/schedulable": "true",
                "machine-type.node.kubevirt.io/q35": "true",
                "type": "kwok",
            },
        },
        "status": {"allocatable": room, "capacity": room},
    }


def metrics_server(port: int, ca: bytes) -> Manifests:
    """metrics-server's identity, its rights, and where the aggregator finds it."""
    account = {"kind": "ServiceAccount", "name": "metrics-server", "namespace": "kube-system"}
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {
            "apiGroups": [""],
            "resources": ["pods", "nodes", "namespaces", "configmaps"],
            "verbs": ["get", "list", "watch"],
        },
    ]
    return [
        (SERVICE_ACCOUNTS, {"metadata": {"name": "metrics-server", "namespace": "kube-system"}}),
        (CLUSTER_ROLES, {"metadata": {"name": "system:metrics-server"}, "rules": rules}),
        (CLUSTER_ROLE_BINDINGS, _binding("system:metrics-server", "ClusterRole", "system:metrics-server", account)),
        (
            CLUSTER_ROLE_BINDINGS,
            _binding("metrics-server:system:auth-delegator", "ClusterRole", "system:auth-delegator", account),
        ),
        (
            ROLE_BINDINGS,
            _binding(
                "metrics-server-auth-reader",
                "Role",
                "extension-apiserver-authentication-reader",
                account,
                namespace="kube-system",
            ),
        ),
        *aggregated_api(
            "metrics.k8s.io",
            ["v1beta1"],
            service="metrics-server",
            namespace="kube-system",
            port=port,
            ca=ca,
            priority=(100, 100),
        ),
    ]


def _binding(name: str, kind: str, role: str, account: Object, namespace: str | None = None) -> Object:
    return {
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [account],
    }
