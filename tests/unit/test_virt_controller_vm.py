from typing import Any

import pytest

from clusters.kubevirt.controller import vm as reconciler
from clusters.kubevirt.controller.writes import Create, Delete, Patch, Replace, Write
from tests.unit.virt_controller_support import HAS_RUN, NOW, deleting, make_vm, make_vmi
from virtflow.kube import Object

UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
PAUSED = {"type": "Paused", "status": "True", "reason": "PausedByUser"}
READY = {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-11-23T06:29:46Z"}


def described(writes: list[Write]) -> list[str]:
    return [f"{type(write).__name__} {write.resource.kind}" for write in writes]


def bare(**meta: Any) -> Object:
    vm = make_vm()
    return {**vm, "metadata": {"name": "test-vm", "namespace": "tenant", "uid": "vm-uid", "generation": 1} | meta}


def revision(vm: Object) -> Object:
    return reconciler.new_revision(vm)


def status_of(vm: Object, vmi: Object | None) -> Object:
    (write,) = reconciler.status_writes(vm, vmi, [], NOW)
    assert isinstance(write, Replace)
    assert write.subresource == "status"
    status: Object = write.body["status"]
    return status


def test_a_new_vm_gets_the_annotations_before_the_finalizer() -> None:
    (annotated,) = reconciler.metadata_writes(bare(), None)
    assert isinstance(annotated, Replace)
    annotations = annotated.body["metadata"]["annotations"]
    (finalized,) = reconciler.metadata_writes(bare(annotations=annotations), None)
    assert isinstance(finalized, Patch)
    assert finalized.patch == [
        {"op": "test", "path": "/metadata/finalizers", "value": None},
        {
            "op": "replace",
            "path": "/metadata/finalizers",
            "value": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
    ]
    assert reconciler.metadata_writes(make_vm(), None) == []


def test_the_finalizer_goes_only_when_the_instance_is_gone() -> None:
    assert reconciler.metadata_writes(deleting(make_vm()), make_vmi("Running")) == []
    (write,) = reconciler.metadata_writes(deleting(make_vm()), None)
    assert isinstance(write, Patch)
    assert write.patch == [
        {
            "op": "test",
            "path": "/metadata/finalizers",
            "value": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
        {"op": "replace", "path": "/metadata/finalizers", "value": []},
    ]


def test_a_start_makes_a_revision_and_then_the_instance() -> None:
    vm = make_vm()
    first, second = reconciler.spec_writes(vm, None, [], NOW)
    assert isinstance(first, Create)
    assert isinstance(second, Create)
    assert first.body["metadata"]["name"] == "revision-start-vm-vm-uid-1"
    assert second.body["metadata"] == {
        "name": "test-vm",
        "namespace": "tenant",
        "labels": {"app": "test"},
        "annotations": {"kubevirt.io/pci-topology-version": "v3", "kubevirt.io/vm-generation": "1"},
        "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        "ownerReferences": [
            {
                "apiVersion": "kubevirt.io/v1",
                "kind": "VirtualMachine",
                "name": "test-vm",
                "uid": "vm-uid",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert second.body["spec"] == vm["spec"]["template"]["spec"]
    assert second.body["status"] == {"virtualMachineRevisionName": "revision-start-vm-vm-uid-1"}


def test_a_start_at_a_later_generation_replaces_the_revision() -> None:
    vm = make_vm()
    old = revision(vm)
    vm["metadata"]["generation"] = 3
    writes = reconciler.spec_writes(vm, None, [old], NOW)
    assert described(writes) == [
        "Delete ControllerRevision",
        "Create ControllerRevision",
        "Create VirtualMachineInstance",
    ]
    assert described(reconciler.spec_writes(vm, None, [revision(vm)], NOW)) == ["Create VirtualMachineInstance"]


@pytest.mark.parametrize(
    ("spec", "starts"),
    [
        ({"runStrategy": "Always"}, True),
        ({"runStrategy": "RerunOnFailure"}, True),
        ({"runStrategy": "Once"}, True),
        ({"runStrategy": "Manual"}, False),
        ({"runStrategy": "Halted"}, False),
        ({"running": True}, True),
        ({"running": False}, False),
    ],
)
def test_who_starts(spec: Object, starts: bool) -> None:
    vm = make_vm()
    vm["spec"] = {"template": vm["spec"]["template"], **spec}
    assert bool(reconciler.spec_writes(vm, None, [], NOW)) is starts
    assert reconciler.spec_writes(deleting(vm), None, [], NOW) == []


@pytest.mark.parametrize(
    ("strategy", "phase", "stops"),
    [
        ("Always", "Running", False),
        ("Always", "Failed", True),
        ("Always", "Succeeded", True),
        ("RerunOnFailure", "Failed", True),
        ("RerunOnFailure", "Succeeded", True),
        ("Once", "Failed", False),
        ("Manual", "Running", False),
        ("Halted", "Scheduling", True),
    ],
)
def test_who_stops(strategy: str, phase: str, stops: bool) -> None:
    vm = make_vm(strategy=strategy)
    deletes = [w for w in reconciler.spec_writes(vm, make_vmi(phase, vm), [], NOW) if isinstance(w, Delete)]
    assert bool(deletes) is stops
    assert reconciler.spec_writes(vm, deleting(make_vmi(phase, vm)), [], NOW) == []


def test_the_generation_is_passed_on_unless_the_template_changed() -> None:
    vm = make_vm()
    vmi = make_vmi("Running", vm, virtualMachineRevisionName="revision-start-vm-vm-uid-1")
    started_from = revision(make_vm())
    vm["metadata"]["generation"] = 2
    (write,) = reconciler.spec_writes(vm, vmi, [started_from], NOW)
    assert isinstance(write, Patch)
    assert isinstance(write.patch, list)
    assert write.patch[1]["value"]["kubevirt.io/vm-generation"] == "2"
    vm["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] = 2
    assert reconciler.spec_writes(vm, vmi, [started_from], NOW) == []
    assert status_of(vm, vmi)["observedGeneration"] == 1
    assert status_of(vm, vmi)["desiredGeneration"] == 2


def test_an_ended_instance_is_let_go() -> None:
    vmi = deleting(make_vmi("Succeeded", phaseTransitionTimestamps=HAS_RUN))
    vmi["metadata"]["finalizers"] = ["kubevirt.io/virtualMachineControllerFinalize", "other"]
    (write,) = reconciler.spec_writes(make_vm(), vmi, [], NOW)
    assert isinstance(write, Patch)
    assert isinstance(write.patch, list)
    assert write.patch[1]["value"] == ["other"]


@pytest.mark.parametrize(
    ("vm", "vmi", "status"),
    [
        (make_vm(), None, "Stopped"),
        (make_vm(), make_vmi("Pending"), "Starting"),
        (make_vm(), make_vmi("Scheduled"), "Starting"),
        (make_vm(), make_vmi("Scheduling", conditions=[UNSCHEDULABLE]), "ErrorUnschedulable"),
        (make_vm(), make_vmi("Running"), "Running"),
        (make_vm(), make_vmi("Running", conditions=[PAUSED]), "Paused"),
        (make_vm(), deleting(make_vmi("Running", conditions=[PAUSED])), "Stopping"),
        (make_vm(), make_vmi("Failed", phaseTransitionTimestamps=HAS_RUN), "Stopped"),
        (make_vm(), make_vmi("Failed"), "CrashLoopBackOff"),
        (make_vm(strategy="Halted"), make_vmi("Failed"), "Stopped"),
        (make_vm(), deleting(make_vmi("Running")), "Stopping"),
        (make_vm(), deleting(make_vmi("Succeeded", phaseTransitionTimestamps=HAS_RUN)), "Stopped"),
        (deleting(make_vm()), make_vmi("Running"), "Terminating"),
    ],
)
def test_printable_status(vm: Object, vmi: Object | None, status: str) -> None:
    assert status_of(vm, vmi)["printableStatus"] == status


def test_nothing_is_said_of_a_vm_that_goes_next() -> None:
    assert reconciler.status_writes(deleting(make_vm()), None, [], NOW) == []
    kept_by_another = deleting(make_vm())
    kept_by_another["metadata"]["finalizers"] = ["example.com/another"]
    assert status_of(kept_by_another, None)["printableStatus"] == "Terminating"


def test_the_status_of_a_running_vm() -> None:
    assert status_of(make_vm(), make_vmi("Running", conditions=[READY])) == {
        "conditions": [READY],
        "created": True,
        "desiredGeneration": 1,
        "observedGeneration": 1,
        "printableStatus": "Running",
        "ready": True,
        "runStrategy": "Always",
        "volumeSnapshotStatuses": [
            {
                "enabled": False,
                "name": "disk0",
                "reason": "Snapshot is not supported for this volumeSource type [disk0]",
            }
        ],
    }


def test_ready_is_never_missing_and_keeps_its_time() -> None:
    vm = make_vm()
    absent = status_of(vm, None)
    assert [each["reason"] for each in absent["conditions"]] == ["VMINotExists"]
    assert "created" not in absent
    assert "ready" not in absent
    assert reconciler.status_writes({**vm, "status": absent}, None, [], NOW.replace(year=2030)) == []
    waiting = status_of({**vm, "status": absent}, make_vmi())
    assert [each["reason"] for each in waiting["conditions"]] == ["VMIConditionMissing"]
    assert waiting["created"] is True


def test_an_instance_without_a_status_yet_is_starting() -> None:
    vm, vmi = make_vm(), make_vmi()
    del vmi["status"]
    vm["metadata"]["generation"] = 2
    assert reconciler.spec_writes(vm, vmi, [revision(make_vm())], NOW) == []
    assert status_of(vm, vmi)["printableStatus"] == "Starting"


def test_a_machine_whose_template_has_no_spec_starts_an_empty_instance() -> None:
    vm = make_vm()
    vm["spec"] = vm["spec"] | {"template": {"metadata": {}}}
    assert "volumeSnapshotStatuses" not in status_of(vm, None)
    created = next(
        write
        for write in reconciler.spec_writes(vm, None, [], NOW)
        if described([write]) == ["Create VirtualMachineInstance"]
    )
    assert isinstance(created, Create)
    assert created.body["spec"] == {"domain": {"devices": {}}}
