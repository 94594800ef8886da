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
    assert mutate_vm(vm(), stored) == stored


def test_the_object_asked_about_is_not_changed() -> None:
    machine = vm()
    before = deepcopy(machine)
    mutate_vm(machine, None)
    assert machine == before


def test_a_machine_whose_template_has_no_spec_gets_an_empty_one() -> None:
    machine: Object = {"metadata": {}, "spec": {"template": {}}}
    assert mutate_vm(machine, None)["spec"]["template"]["spec"]["domain"]["devices"] == {}


def test_an_instance_gets_the_recorded_defaults() -> None:
    vmi = mutate_new_instance(instance())
    firmware = vmi["spec"]["domain"].pop("firmware")
    assert firmware.keys() == {"uuid"}
    transition = vmi["status"].pop("phaseTransitionTimestamps")
    assert [entry["phase"] for entry in transition] == ["Pending"]
    assert vmi == {
        "metadata": {
            "annotations": {"kubevirt.io/pci-topology-version": "v3"},
            "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        },
        "spec": {
            "architecture": "amd64",
            "domain": {
                "cpu": {"cores": 1, "model": "host-model"},
                "devices": {
                    "disks": [{"disk": {"bus": "virtio"}, "name": "disk0"}],
                    "interfaces": [{"bridge": {}, "name": "default"}],
                },
                "features": {"acpi": {"enabled": True}},
                "machine": {"type": "q35"},
                "memory": {"guest": "1Gi", "maxGuest": "4Gi"},
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
            },
            "evictionStrategy": "None",
            "networks": [{"name": "default", "pod": {}}],
            "volumes": [
                {
                    "containerDisk": {
                        "image": "registry.example/ubuntu:22.04",
                        "imagePullPolicy": "IfNotPresent",
                    },
                    "name": "disk0",
                }
            ],
        },
        "status": {
            "currentCPUTopology": {"cores": 1},
            "guestOSInfo": {},
            "memory": {"guestAtBoot": "1Gi", "guestCurrent": "1Gi", "guestRequested": "1Gi"},
            "phase": "Pending",
            "runtimeUser": 107,
        },
    }


def test_an_instance_keeps_its_creators_finalizer_and_revision() -> None:
    finalizers = ["kubevirt.io/virtualMachineControllerFinalize"]
    status = {"virtualMachineRevisionName": "revision-start-vm-1"}
    vmi = mutate_new_instance(instance(metadata={"finalizers": finalizers}, status=status))
    assert vmi["metadata"]["finalizers"] == [*finalizers, "kubevirt.io/foregroundDeleteVirtualMachine"]
    assert vmi["status"]["virtualMachineRevisionName"] == "revision-start-vm-1"


@pytest.mark.parametrize(
    ("domain", "memory", "requests"),
    [
        ({"memory": {"guest": "2048Mi"}}, {"guest": "2Gi", "maxGuest": "8Gi"}, {"memory": "2048Mi"}),
        (
            {"memory": {"guest": "1Gi", "maxGuest": "2Gi"}, "resources": {"requests": {"memory": "512Mi"}}},
            {"guest": "1Gi", "maxGuest": "2Gi"},
            {"memory": "512Mi"},
        ),
        (
            {"resources": {"limits": {"memory": "1Gi", "cpu": "2"}}},
            {"guest": "1Gi", "maxGuest": "4Gi"},
            {"memory": "1Gi", "cpu": "2"},
        ),
        ({}, None, None),
    ],
)
def test_memory_and_requests_follow_from_each_other(
    domain: Object, memory: Object | None, requests: Object | None
) -> None:
    vmi = mutate_new_instance({"metadata": {}, "spec": {"domain": {"devices": {}} | deepcopy(domain)}})
    found = vmi["spec"]["domain"]
    assert found.get("memory") == memory
    assert found["resources"].get("requests") == requests
    assert ("memory" in vmi["status"]) == (memory is not None)


def test_sockets_may_be_added_later() -> None:
    vmi = mutate_new_instance({"metadata": {}, "spec": {"domain": {"cpu": {"sockets": 2}, "devices": {}}}})
    assert vmi["spec"]["domain"]["cpu"] == {"sockets": 2, "maxSockets": 8, "model": "host-model"}


def test_an_instance_may_do_without_a_pod_network() -> None:
    spec = {"domain": {"devices": {"autoattachPodInterface": False}}}
    vmi = mutate_new_instance({"metadata": {}, "spec": spec})
    assert "networks" not in vmi["spec"]
    assert "interfaces" not in vmi["spec"]["domain"]["devices"]


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
