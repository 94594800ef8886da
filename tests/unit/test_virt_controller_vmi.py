from datetime import timedelta
from typing import Any

import pytest

from clusters.kubevirt.controller import vmi as reconciler
from clusters.kubevirt.controller.launcher import launcher_pod
from clusters.kubevirt.controller.writes import Create, Delete, Patch, Replace, Write
from tests.unit.virt_controller_support import NOW, deleting, make_vmi
from virtflow.kube import Object

UNPAUSED = {"type": "kubevirt.io/virtual-machine-unpaused", "status": "True", "reason": "NotPaused"}
READY = {"type": "Ready", "status": "True"}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available",
    "lastTransitionTime": "2026-11-23T06:30:10Z",
    "observedGeneration": 1,
}


def make_pod(phase: str = "Pending", node: str | None = None, *conditions: Object) -> Object:
    pod = launcher_pod(make_vmi())
    pod["metadata"] |= {"uid": "pod-uid", "resourceVersion": "3"}
    pod["status"] = {"phase": phase, "qosClass": "Burstable", "conditions": [UNPAUSED, *conditions]}
    if node:
        pod["spec"]["nodeName"] = node
    if phase == "Running":
        pod["status"]["containerStatuses"] = [{"name": "compute", "ready": True}]
        pod["status"]["conditions"].append(READY)
    return pod


def replaced(writes: list[Write]) -> Object:
    (write,) = writes
    assert isinstance(write, Replace)
    return write.body


def reasons(vmi: Object) -> list[str]:
    return [each.get("reason") or each["status"] for each in vmi["status"]["conditions"]]


def placed(phase: str = "Running", **status: Any) -> Object:
    """A VMI that has been through Scheduling and Scheduled."""
    vmi = make_vmi("Scheduling")
    vmi = replaced(reconciler.plan(vmi, make_pod("Running", "node-1"), NOW))
    ready = {"conditions": [READY]} if phase == "Running" else {}
    vmi["status"] |= {"phase": phase, **ready, **status}
    return vmi


def test_a_new_instance_is_annotated_then_gets_its_pod() -> None:
    vmi = make_vmi()
    vmi["metadata"]["annotations"] = {}
    annotated = replaced(reconciler.plan(vmi, None, NOW))
    assert annotated["metadata"]["annotations"]["kubevirt.io/latest-observed-api-version"] == "v1"
    (write,) = reconciler.plan(annotated, None, NOW)
    assert isinstance(write, Create)
    assert write.body["metadata"]["ownerReferences"][0]["uid"] == "vmi-uid"


def unadmitted(**meta: Any) -> Object:
    """An instance made while the webhooks were not in place."""
    vmi = make_vmi()
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {
        "apiVersion": vmi["apiVersion"],
        "kind": vmi["kind"],
        "metadata": {name: vmi["metadata"][name] for name in kept} | meta,
        "spec": {"domain": {"devices": {}}},
    }


@pytest.mark.parametrize("status", [{}, {"status": {"virtualMachineRevisionName": "revision"}}])
@pytest.mark.parametrize("annotations", [{}, make_vmi()["metadata"]["annotations"]])
def test_what_the_webhook_left_out_is_filled_in_with_the_first_write(status: Object, annotations: Object) -> None:
    vmi = replaced(reconciler.plan(unadmitted(annotations=annotations) | status, None, NOW))
    assert vmi["metadata"]["finalizers"] == ["kubevirt.io/foregroundDeleteVirtualMachine"]
    assert vmi["status"].items() >= {"phase": "Pending", **status.get("status", {})}.items()
    (write,) = reconciler.plan(vmi, None, NOW)
    assert isinstance(write, Create)
    selector = write.body["spec"]["nodeSelector"]
    assert selector["kubernetes.io/arch"] == "amd64"
    assert "machine-type.node.kubevirt.io/q35" in selector


def test_one_that_is_deleted_meanwhile_gets_no_finalizer_which_the_api_would_refuse() -> None:
    vmi = replaced(reconciler.plan(deleting(unadmitted(finalizers=["other"])), None, NOW))
    assert vmi["metadata"]["finalizers"] == ["other"]
    ended = replaced(reconciler.plan(vmi, None, NOW))
    assert ended["status"]["phase"] == "Failed"


def test_a_pod_makes_it_scheduling() -> None:
    pod = make_pod()
    pod["status"]["conditions"] = []
    unpaused, update = reconciler.plan(make_vmi(), pod, NOW)
    assert isinstance(unpaused, Patch)
    assert unpaused.subresource == "status"
    vmi = replaced([update])
    assert vmi["status"]["phase"] == "Scheduling"
    assert reasons(vmi) == ["GuestNotRunning"]
    assert vmi["status"]["activePods"] == {"pod-uid": ""}
    assert vmi["status"]["memory"]["memoryOverhead"] == "290Mi"
    assert [each["phase"] for each in vmi["status"]["phaseTransitionTimestamps"]] == ["Pending", "Scheduling"]
    assert reconciler.plan(vmi, make_pod(), NOW) == []


def test_a_ready_pod_makes_it_scheduled_on_its_node() -> None:
    vmi = replaced(reconciler.plan(make_vmi("Scheduling"), make_pod("Running", "node-1"), NOW))
    assert vmi["status"]["phase"] == "Scheduled"
    assert vmi["status"]["nodeName"] == "node-1"
    assert vmi["metadata"]["labels"]["kubevirt.io/nodeName"] == "node-1"
    assert vmi["status"]["activePods"] == {"pod-uid": "node-1"}
    assert vmi["status"]["interfaces"] == [{"name": "default", "podInterfaceName": "eth0"}]
    assert vmi["status"]["volumeStatus"] == [{"name": "disk0", "target": ""}]
    (label,) = reconciler.plan(vmi, make_pod("Running", "node-1"), NOW)
    assert isinstance(label, Patch)
    assert isinstance(label.patch, list)
    assert label.patch[1]["value"]["kubevirt.io/nodeName"] == "node-1"


def test_an_unschedulable_pod_is_told_until_it_is_scheduled() -> None:
    vmi = replaced(reconciler.plan(make_vmi("Scheduling"), make_pod("Pending", None, UNSCHEDULABLE), NOW))
    assert reasons(vmi) == ["GuestNotRunning", "Unschedulable"]
    assert "observedGeneration" not in vmi["status"]["conditions"][1]
    vmi = replaced(reconciler.plan(vmi, make_pod("Running", "node-1"), NOW))
    assert reasons(vmi) == ["GuestNotRunning"]


def test_a_refused_pod_is_told_once() -> None:
    vmi = replaced(reconciler.failed_create(make_vmi(), "exceeded quota: q", NOW))
    assert reasons(vmi) == ["PodNotExists", "FailedCreate"]
    assert vmi["status"]["conditions"][1]["message"].endswith("pod: exceeded quota: q")
    assert reconciler.failed_create(vmi, "exceeded quota: more used", NOW + timedelta(hours=1)) == []


def test_without_its_pod_a_running_instance_has_failed() -> None:
    (write,) = reconciler.plan(placed(), None, NOW)
    assert isinstance(write, Patch)
    assert isinstance(write.patch, list)
    assert {"op": "test", "path": "/status/phase", "value": "Running"} in write.patch
    assert {"op": "replace", "path": "/status/phase", "value": "Failed"} in write.patch


def test_a_terminating_pod_is_not_ready() -> None:
    (write,) = reconciler.plan(placed(), deleting(make_pod("Running", "node-1")), NOW)
    assert isinstance(write, Patch)
    assert isinstance(write.patch, list)
    assert [each["path"] for each in write.patch] == ["/status/conditions", "/status/conditions"]
    assert write.patch[1]["value"][0]["reason"] == "PodTerminating"


def test_a_deleted_instance_takes_its_pod_along() -> None:
    delete, patch = reconciler.plan(deleting(placed()), make_pod("Running", "node-1"), NOW)
    assert isinstance(delete, Delete)
    # In the same pass: the next one may find the pod gone already.
    assert isinstance(patch, Patch)
    assert isinstance(patch.patch, list)
    assert patch.patch[1]["value"][0]["reason"] == "PodTerminating"
    assert reconciler.pod_writes(placed("Failed"), make_pod("Failed", "node-1"), NOW) == []


def test_virt_handler_has_a_while_to_report_a_deleted_guests_end() -> None:
    vmi = deleting(placed())
    within, after = NOW + timedelta(seconds=9), NOW + timedelta(seconds=11)
    assert reconciler.awaits_handler(vmi, within)
    assert reconciler.next_phase(vmi, None, within) == "Running"
    assert not reconciler.awaits_handler(vmi, after)
    assert reconciler.next_phase(vmi, None, after) == "Failed"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Pending", "Scheduling"])
def test_the_finalizer_goes_with_the_last_word(phase: str) -> None:
    ended = replaced(reconciler.plan(deleting(make_vmi(phase)), None, NOW))
    assert ended["metadata"]["finalizers"] == []
    assert ended["status"]["phase"] == ("Succeeded" if phase == "Succeeded" else "Failed")
    assert reasons(ended) == ["PodNotExists"]


def test_an_ended_instance_waits_for_its_pod() -> None:
    vmi = deleting(placed("Succeeded"))
    terminating = deleting(make_pod("Running", "node-1"))
    for write in reconciler.plan(vmi, terminating, NOW):
        assert isinstance(write, Patch)
        assert "finalizers" not in str(write.patch)


def test_an_instance_that_is_as_it_should_be_is_left_alone() -> None:
    pod = make_pod("Running", "node-1")
    pod["metadata"]["labels"]["kubevirt.io/nodeName"] = "node-1"
    assert reconciler.plan(placed("Scheduled"), pod, NOW) == []
    assert reconciler.plan(placed("Running"), pod, NOW) == []


def test_a_paused_instance_closes_its_pods_gate_and_opens_it_again() -> None:
    paused = {"type": "Paused", "status": "True", "reason": "PausedByUser"}
    vmi, pod = placed(conditions=[READY, paused]), make_pod("Running", "node-1")
    (closed, *_) = reconciler.pod_writes(vmi, pod, NOW)
    assert isinstance(closed, Patch)
    assert isinstance(closed.patch, dict)
    (gate,) = closed.patch["status"]["conditions"]
    assert (gate["status"], gate["reason"], gate["message"]) == ("False", "Paused", "the virtual machine is paused")
    pod["status"]["conditions"] = [gate]
    assert all("conditions" not in str(write) for write in reconciler.pod_writes(vmi, pod, NOW)[1:])
    (opened, *_) = reconciler.pod_writes(placed(), pod, NOW)
    assert isinstance(opened, Patch)
    assert "NotPaused" in str(opened.patch)


def test_an_instance_that_runs_is_as_ready_as_its_pod() -> None:
    closed = {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": "gate"}
    pod = make_pod("Running", "node-1")
    pod["status"]["conditions"] = [UNPAUSED, closed]
    told = reconciler.advance(placed(), pod, NOW, has_vm=True)
    assert reasons(told) == ["ReadinessGatesNotReady"]
    pod["status"]["conditions"] = [UNPAUSED]
    assert reasons(reconciler.advance(placed(), pod, NOW, has_vm=True)) == ["PodConditionMissing"]
    pod["status"]["phase"] = "Failed"
    ended = reconciler.advance(placed(), pod, NOW, has_vm=True)
    assert (ended["status"]["phase"], reasons(ended)) == ("Running", ["PodTerminating"])


def test_a_pod_that_goes_before_it_was_ready_is_a_failure() -> None:
    told = reconciler.advance(make_vmi("Scheduling"), deleting(make_pod("Pending")), NOW, has_vm=True)
    assert told["status"]["phase"] == "Failed"


def test_without_a_vm_its_finalizer_goes_with_the_end() -> None:
    vmi = placed("Succeeded")
    vmi["metadata"]["finalizers"] = ["kubevirt.io/virtualMachineControllerFinalize"]
    pod = make_pod("Succeeded", "node-1")
    left = replaced(reconciler.plan(vmi, pod, NOW, has_vm=False))
    assert left["metadata"]["finalizers"] == []
    kept = reconciler.advance(vmi, pod, NOW, has_vm=True)
    assert kept["metadata"]["finalizers"] == ["kubevirt.io/virtualMachineControllerFinalize"]
