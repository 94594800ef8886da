"""What the mutating webhooks fill in, against what a real KubeVirt was recorded to store."""

from copy import deepcopy
from uuid import UUID

import pytest

from clusters.kubevirt.api.defaults import pull_policy
from clusters.kubevirt.api.mutate import mutate_new_instance, mutate_vm
from virtflow.kube import Object

SPEC: Object = {
    "domain": {
        "cpu": {"cores": 1},
        "resources": {"requests": {"memory": "1Gi", "cpu": "1"}},
        "devices": {"disks": [{"name": "disk0", "disk": {"bus": "virtio"}}]},
    },
    "volumes": [{"name": "disk0", "containerDisk": {"image": "registry.example/ubuntu:22.04"}}],
}


def vm(spec: Object = SPEC) -> Object:
    return {"metadata": {}, "spec": {"runStrategy": "Always", "template": {"metadata": {}, "spec": spec}}}


def instance(**parts: Object) -> Object:
    return {"metadata": {}, "spec": deepcopy(SPEC), **parts}


def test_a_machine_gets_its_template_completed() -> None:
    template = mutate_vm(vm(), None)["spec"]["template"]
    firmware = template["spec"]["domain"].pop("firmware")
    assert template == {
        "metadata": {"annotations": {"kubevirt.io/pci-topology-version": "v3"}},
        "spec": SPEC | {"architecture": "amd64", "domain": SPEC["domain"] | {"machine": {"type": "q35"}}},
    }
    assert UUID(firmware["uuid"]) != UUID(firmware["serial"])


def test_a_machine_keeps_what_it_says_itself() -> None:
    machine = {"type": "pc-q35-rhel9.4.0"}
    chosen = SPEC | {"architecture": "arm64", "domain": SPEC["domain"] | {"machine": machine}}
    spec = mutate_vm(vm(chosen), None)["spec"]["template"]["spec"]
    assert (spec["architecture"], spec["domain"]["machine"]) == ("arm64", machine)


def test_a_machine_keeps_its_firmware_ids_through_an_update_that_leaves_them_out() -> None:
    stored = mutate_vm(vm(), None)
    ids = stored["spec"]["template"]["spec"]["domain"]["firmware"]
    assert mutate_vm(vm(), stored)["spec"]["template"]["spec"]["domain"]["firmware"] == ids


def test_the_object_asked_about_is_not_changed() -> None:
    machine = vm()
    before = deepcopy(machine)
    mutate_vm(machine, None)
    assert machine == before


def test_a_machine_whose_template_has_no_spec_gets_an_empty_one() -> None:
    machine: Object = {"metadata": {}, "spec": {"template": {}}}
    assert mutate_vm(machine, None)["spec"]["template"]["spec"]["domain"]["devices"] == {}


def test_an_instance_gets_a_first_status_and_marks_of_its_own() -> None:
    vmi = mutate_new_instance(instance())
    transition = vmi["status"].pop("phaseTransitionTimestamps")
    assert [entry["phase"] for entry in transition] == ["Pending"]
    assert vmi["spec"]["domain"]["firmware"].keys() == {"uuid"}
    assert vmi["metadata"] == {
        "annotations": {"kubevirt.io/pci-topology-version": "v3"},
        "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
    }
    assert vmi["status"] == {
        "currentCPUTopology": {"cores": 1},
        "guestOSInfo": {},
        "memory": {"guestAtBoot": "1Gi", "guestCurrent": "1Gi", "guestRequested": "1Gi"},
        "phase": "Pending",
        "runtimeUser": 107,
    }


def test_an_instance_keeps_its_creators_finalizer_and_revision() -> None:
    finalizers = ["kubevirt.io/virtualMachineControllerFinalize"]
    status = {"virtualMachineRevisionName": "revision-start-vm-1"}
    vmi = mutate_new_instance(instance(metadata={"finalizers": finalizers}, status=status))
    assert vmi["metadata"]["finalizers"] == [*finalizers, "kubevirt.io/foregroundDeleteVirtualMachine"]
    assert vmi["status"]["virtualMachineRevisionName"] == "revision-start-vm-1"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("registry.example/ubuntu:22.04", "IfNotPresent"),
        ("registry.example/ubuntu:latest", "Always"),
        ("registry.example/ubuntu", "Always"),
        ("registry.example/ubuntu@sha256:0123", "IfNotPresent"),
    ],
)
def test_an_image_without_a_fixed_version_is_always_pulled(image: str, policy: str) -> None:
    assert pull_policy(image) == policy
