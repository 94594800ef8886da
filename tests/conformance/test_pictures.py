"""What names, events, objects and tables look like without what differs from run to run."""

import pytest

from tests.conformance.names import Names
from tests.conformance.picture import event_told, picture_of, rows_of

NOT_RUNNING = {"type": "Ready", "status": "False", "reason": "GuestNotRunning", "message": "not yet"}


def names() -> Names:
    known = Names("tenant-a", ["node-1", "node-10"])
    known.learn("VirtualMachineInstanceReplicaSet", "web", "")
    known.learn("VirtualMachine", "test-vm", "78279292-d2c2-429b-a8f1-03979b3ddb2a")
    return known


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("virt-launcher-test-vm-p4xmg", "virt-launcher-test-vm-*"),
        ("virt-launcher-webh7l6l-kq8xr", "virt-launcher-web*-*"),
        ("webh7l6l", "web*"),
        ("webserver", "webserver"),
        ("my-first-vm", "my-first-vm"),
        ("assigned tenant-a/x to node-10", "assigned <namespace>/x to <node>"),
        ("tenant-ab", "tenant-ab"),
        ("revision-78279292-d2c2-429b-a8f1-03979b3ddb2a-1", "revision-<uid of VirtualMachine test-vm>-1"),
        ("00000000-d2c2-429b-a8f1-03979b3ddb2a", "<uid>"),
        ("0/3 nodes are available: 3 Insufficient memory.", "N/N nodes are available: N Insufficient memory."),
    ],
)
def test_names_are_masked(text: str, masked: str) -> None:
    assert names().mask(text) == masked


def test_an_event_said_often_reads_as_said_once() -> None:
    event = {"type": "Warning", "reason": "FailedCreate", "involvedObject": {"kind": "VirtualMachineInstance"}}
    once = event_told({**event, "message": "Error creating pod"}, names())
    assert once == "Warning FailedCreate VirtualMachineInstance: Error creating pod"
    assert event_told({**event, "message": "(combined from similar events): Error creating pod"}, names()) == once


def test_a_picture_has_all_but_what_differs_from_run_to_run() -> None:
    owner = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "name": "test-vm",
        "uid": "78279292-d2c2-429b-a8f1-03979b3ddb2a",
        "controller": True,
    }
    instance = {
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "test-vm",
            "uid": "1",
            "resourceVersion": "7",
            "labels": {"kubevirt.io/nodeName": "node-1"},
            "annotations": {"kwok.x-k8s.io/usage-cpu": "1m"},
            "finalizers": ["b", "a"],
            "ownerReferences": [owner],
        },
        "status": {
            "phase": "Running",
            "conditions": [{**NOT_RUNNING, "lastTransitionTime": "2026-11-23T06:29:46Z"}],
            "phaseTransitionTimestamps": [{"phase": "Pending", "phaseTransitionTimestamp": "2026-11-23T06:29:46Z"}],
            "launcherContainerImageVersion": "registry.example/virt-launcher:v1.9.0",
            "activePods": {"2": "node-1"},
        },
    }
    assert picture_of(instance, names()) == {
        "object": "VirtualMachineInstance test-vm",
        "labels": ["kubevirt.io/nodeName=<node>"],
        "finalizers": ["a", "b"],
        "owners": ["VirtualMachine test-vm, <uid of VirtualMachine test-vm>, controller, kubevirt.io/v1"],
        "conditions": ["Ready False (GuestNotRunning): not yet"],
        "status": {
            "phase": "Running",
            "phases": "Pending",
            "launcherContainerImageVersion": "<image>",
            "activePods": {"2": "<node>"},
        },
    }


def test_a_wrong_owner_is_seen() -> None:
    owner = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "name": "test-vm",
        "uid": "00000000-d2c2-429b-a8f1-03979b3ddb2a",
    }
    pod = {"kind": "Pod", "metadata": {"name": "p", "ownerReferences": [owner]}}
    assert picture_of(pod, names())["owners"] == ["VirtualMachine test-vm, <uid>, kubevirt.io/v1"]


def test_a_table_reads_as_kubectl_prints_it() -> None:
    columns = [{"name": name} for name in ("Name", "Age", "IP", "Node", "Ready")]
    rows = [
        {"cells": ["web2bcdf", "3s", None, "<none>", True]},
        {"cells": ["web1bcdf", "4m", "10.0.0.1", "node-1", False]},
    ]
    assert rows_of({"columnDefinitions": columns, "rows": rows}, names()) == [
        "NAME | AGE | IP | NODE | READY",
        "web* | <age> |  | <none> | True",
        "web* | <age> | <ip> | <node> | False",
    ]
    assert rows_of({"columnDefinitions": columns, "rows": []}, names()) == []
