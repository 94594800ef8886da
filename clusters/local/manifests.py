"""What a local cluster holds beside Kubernetes' own objects and KubeVirt's: nodes, their metrics, metrics-server."""

import base64
from typing import Any

from virtflow.kube.resources import (
    API_SERVICES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NODES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Object,
    Resource,
)

__all__ = ["USAGE_ANNOTATION", "metrics_server", "nodes", "usage_from_annotation"]

METRICS = Resource("kwok.x-k8s.io", "v1alpha1", "metrics", "Metric", namespaced=False)
CLUSTER_RESOURCE_USAGES = Resource(
    "kwok.x-k8s.io", "v1alpha1", "clusterresourceusages", "ClusterResourceUsage", namespaced=False
)
USAGE_ANNOTATION = "kwok.x-k8s.io/usage-cpu"
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


def usage_from_annotation() -> Manifests:
    """Each pod uses the CPU its annotation says; a pod without one, next to nothing."""

    def annotation(key: str, otherwise: str) -> dict[str, str]:
        has, value = f'"{key}" in pod.metadata.annotations', f'pod.metadata.annotations["{key}"]'
        return {"expression": f'{has} ? Quantity({value}) : Quantity("{otherwise}")'}

    usage = {
        # Only the container that is the VM: without this the annotation would count once for each container.
        "containers": ["compute"],
        "usage": {
            "cpu": annotation(USAGE_ANNOTATION, "1m"),
            "memory": annotation("kwok.x-k8s.io/usage-memory", "64Mi"),
        },
    }
    metrics = [
        _metric("node_cpu_usage_seconds_total", "counter", "node", 'node.CumulativeUsage("cpu")'),
        _metric("node_memory_working_set_bytes", "gauge", "node", 'node.Usage("memory")'),
        _metric("pod_cpu_usage_seconds_total", "counter", "pod", 'pod.CumulativeUsage("cpu")'),
        _metric("pod_memory_working_set_bytes", "gauge", "pod", 'pod.Usage("memory")'),
        _metric("container_start_time_seconds", "gauge", "container", "pod.SinceSecond()"),
        _metric(
            "container_cpu_usage_seconds_total", "counter", "container", 'pod.CumulativeUsage("cpu", container.name)'
        ),
        _metric("container_memory_working_set_bytes", "gauge", "container", 'pod.Usage("memory", container.name)'),
    ]
    return [
        (CLUSTER_RESOURCE_USAGES, {"metadata": {"name": "usage-from-annotation"}, "spec": {"usages": [usage]}}),
        (
            METRICS,
            {"metadata": {"name": "resource-metrics"}, "spec": {"path": RESOURCE_METRICS_PATH, "metrics": metrics}},
        ),
    ]


LABELS = {
    "node": {},
    "pod": {"namespace": "pod.metadata.namespace", "pod": "pod.metadata.name"},
    "container": {
        "namespace": "pod.metadata.namespace",
        "pod": "pod.metadata.name",
        "container": "container.name",
    },
}


def _metric(name: str, kind: str, dimension: str, value: str) -> dict[str, Any]:
    labels = [{"name": label, "value": expression} for label, expression in LABELS[dimension].items()]
    return {
        "name": name,
        "help": name.replace("_", " "),
        "kind": kind,
        "dimension": dimension,
        "labels": labels,
        "value": value,
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
        # The aggregator follows an ExternalName, and so reaches a process on the host.
        (
            SERVICES,
            {
                "metadata": {"name": "metrics-server", "namespace": "kube-system"},
                "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
            },
        ),
        (
            API_SERVICES,
            {
                "metadata": {"name": "v1beta1.metrics.k8s.io"},
                "spec": {
                    "group": "metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "caBundle": base64.b64encode(ca).decode(),
                    "service": {"name": "metrics-server", "namespace": "kube-system", "port": port},
                },
            },
        ),
    ]


def _binding(name: str, kind: str, role: str, account: Object, namespace: str | None = None) -> Object:
    return {
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [account],
    }
