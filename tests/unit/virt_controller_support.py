"""Objects to test virt-controller with."""

from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from clusters.kubevirt.api.mutate import mutate_new_instance
from clusters.kubevirt.objects import format_time
from virtflow.kube import Object

NOW = datetime(2026, 11, 23, 6, 29, 46, tzinfo=UTC)
TIME = "2026-11-23T06:29:46Z"
NAMESPACE, NODE_NAMES = "tenant", ("node-1", "node-2")
HAS_RUN = [{"phase": phase, "phaseTransitionTimestamp": TIME} for phase in ("Pending", "Running")]
"""Phase transitions of an instance that did not fail to start."""

DOMAIN: Object = {
    "cpu": {"cores": 1},
    "devices": {"disks": [{"name": "disk0", "disk": {"bus": "virtio"}}]},
    "machine": {"type": "q35"},
    "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
}
TEMPLATE: Object = {
    "metadata": {"labels": {"app": "test"}, "annotations": {"kubevirt.io/pci-topology-version": "v3"}},
    "spec": {
        "architecture": "amd64",
        "domain": DOMAIN,
        "volumes": [{"name": "disk0", "containerDisk": {"image": "registry.example/ubuntu:22.04"}}],
    },
}


def make_vm(name: str = "test-vm", strategy: str = "Always", **status: Any) -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": "vm-uid",
            "generation": 1,
            "resourceVersion": "1",
            "annotations": {
                "kubevirt.io/latest-observed-api-version": "v1",
                "kubevirt.io/storage-observed-api-version": "v1",
            },
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
        "spec": {"runStrategy": strategy, "template": deepcopy(TEMPLATE)},
        "status": status,
    }


def make_vmi(phase: str = "Pending", owner: Object | None = None, **status: Any) -> Object:
    meta: Object = {
        "name": "test-vm",
        "namespace": NAMESPACE,
        "uid": "vmi-uid",
        "resourceVersion": "2",
        "creationTimestamp": TIME,
        "labels": {"app": "test"},
        "annotations": {
            "kubevirt.io/latest-observed-api-version": "v1",
            "kubevirt.io/storage-observed-api-version": "v1",
            "kubevirt.io/pci-topology-version": "v3",
            "kubevirt.io/vm-generation": "1",
        },
        "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
    }
    if owner is not None:
        meta["ownerReferences"] = [
            {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
            | {"apiVersion": "kubevirt.io/v1", "controller": True, "blockOwnerDeletion": True}
        ]
    transitions = [{"phase": "Pending", "phaseTransitionTimestamp": TIME}]
    new = mutate_new_instance(
        {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": meta,
            "spec": deepcopy(TEMPLATE["spec"]),
        }
    )
    new["status"] |= {"phase": phase, "phaseTransitionTimestamps": transitions, **status}
    return new


def make_node(name: str, heartbeat: datetime) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"{name}-uid",
            "resourceVersion": "0",
            "labels": {"kubevirt.io/schedulable": "true"},
            "annotations": {"kubevirt.io/heartbeat": format_time(heartbeat)},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def deleting(obj: Object, at: str = TIME) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": at}}


def make_vmirs(replicas: int, name: str = "test-vmirs", uid: str = "vmirs-uid") -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid,
            "resourceVersion": "1",
            "generation": 1,
            "annotations": make_vm()["metadata"]["annotations"],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "test"}},
            "template": deepcopy(TEMPLATE),
        },
    }
