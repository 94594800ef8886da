"""What the stand-in does not model is refused in words, or warned of; what is the guest's own affair is neither."""

import pytest

from tests.unit.admission_cases import merged
from tests.unit.test_admission_rules import MINIMAL, admit, ask
from virtflow.kube import Object

LAN = {"name": "default", "multus": {"networkName": "lan"}}


def instance(patch: Object) -> Object:
    return {"template": {"spec": patch}}


def refusal(patch: Object) -> dict[str, str]:
    response = admit(MINIMAL | {"spec": merged(MINIMAL["spec"], patch)})
    assert response["allowed"] is False
    assert response["status"]["code"] == 422
    causes = response["status"]["details"]["causes"]
    assert {cause["reason"] for cause in causes} == {"FieldValueNotSupported"}
    return {cause["field"].removeprefix("spec."): cause["message"] for cause in causes}


@pytest.mark.parametrize(
    ("patch", "field", "what"),
    [
        (
            instance({"volumes": [{"name": "disk0", "persistentVolumeClaim": {"claimName": "root"}}]}),
            "template.spec.volumes[0].persistentVolumeClaim",
            "persistent storage",
        ),
        (
            instance({"volumes": [{"name": "disk0", "dataVolume": {"name": "root"}}]}),
            "template.spec.volumes[0].dataVolume",
            "persistent storage",
        ),
        (
            instance({"domain": {"devices": {"tpm": {"persistent": True}}}}),
            "template.spec.domain.devices.tpm.persistent",
            "persistent storage",
        ),
        (
            instance({"networks": [LAN], "domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}}}),
            "template.spec.networks[0].multus",
            "networks other than the pod's",
        ),
        (
            instance({"domain": {"devices": {"gpus": [{"name": "gpu", "deviceName": "vendor/gpu"}]}}}),
            "template.spec.domain.devices.gpus",
            "devices of the host",
        ),
        (
            instance({"domain": {"cpu": {"dedicatedCpuPlacement": True}}}),
            "template.spec.domain.cpu.dedicatedCpuPlacement",
            "dedicated CPUs and huge pages",
        ),
        (
            instance({"domain": {"memory": {"hugepages": {"pageSize": "2Mi"}}}}),
            "template.spec.domain.memory.hugepages",
            "dedicated CPUs and huge pages",
        ),
        ({"instancetype": {"name": "u1.small"}}, "instancetype", "instance types and preferences"),
        ({"preference": {"name": "fedora"}}, "preference", "instance types and preferences"),
        ({"updateVolumesStrategy": "Migration"}, "updateVolumesStrategy", "migration"),
    ],
)
def test_what_would_not_run_like_this_anywhere_is_refused(patch: Object, field: str, what: str) -> None:
    found = refusal(patch)
    assert found == {
        field: f"spec.{field}: virtflow's local stand-in for KubeVirt does not model {what}, "
        "only a cluster with the real KubeVirt does"
    }


def test_a_disk_made_with_its_machine_is_refused_with_the_volume_that_shows_it() -> None:
    patch = instance({"volumes": [{"name": "disk0", "dataVolume": {"name": "root"}}]}) | {
        "dataVolumeTemplates": [{"metadata": {"name": "root"}, "spec": {"pvc": {}, "source": {"blank": {}}}}]
    }
    assert refusal(patch).keys() == {"template.spec.volumes[0].dataVolume", "dataVolumeTemplates"}


def test_kubevirts_own_refusal_comes_first() -> None:
    response = admit(MINIMAL | {"spec": merged(MINIMAL["spec"], {"instancetype": {}, "runStrategy": "Sometimes"})})
    assert response["status"]["message"] == "Invalid RunStrategy (Sometimes)"


@pytest.mark.parametrize(
    "patch",
    [
        {"template": {"spec": {"volumes": [{"name": "disk0", "dataVolume": {"name": "root"}}]}}},
        {"template": {"spec": {"domain": {"devices": {"gpus": [{"name": "gpu"}]}}}}},
    ],
)
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("VirtualMachineInstance", "/virtualmachineinstances-validate-create"),
        ("VirtualMachineInstanceReplicaSet", "/virtualmachinereplicaset-validate"),
    ],
)
def test_the_other_kinds_are_refused_the_same(kind: str, path: str, patch: Object) -> None:
    template = merged(MINIMAL["spec"], patch)["template"]
    spec = template["spec"] | {"architecture": "amd64"}
    if kind.endswith("Set"):
        spec = {"selector": {"matchLabels": template["metadata"]["labels"]}, "template": template}
    response = ask(path, {"kind": kind, "metadata": {}, "spec": spec})
    assert response["allowed"] is False
    assert "does not model" in response["status"]["message"]


@pytest.mark.parametrize(
    ("patch", "field", "what"),
    [
        ({"evictionStrategy": "LiveMigrate"}, "evictionStrategy", "migration"),
        ({"readinessProbe": {"httpGet": {"port": 80}}}, "readinessProbe", "probes"),
    ],
)
def test_what_has_no_effect_is_warned_of(patch: Object, field: str, what: str) -> None:
    response = admit(MINIMAL | {"spec": merged(MINIMAL["spec"], instance(patch))})
    assert response == {
        "allowed": True,
        "warnings": [
            f"spec.template.spec.{field} has no effect: virtflow's local stand-in for KubeVirt does not model {what}"
        ],
    }


@pytest.mark.parametrize(
    "patch",
    [
        {"domain": {"clock": {"utc": {}}, "firmware": {"bootloader": {"efi": {"secureBoot": False}}}}},
        {"domain": {"cpu": {"cores": 2, "model": "Skylake-Server"}, "devices": {"rng": {}, "tpm": {}}}},
        {
            "domain": {"devices": {"disks": [{"name": "init"}]}},
            "volumes": [{"name": "init", "cloudInitNoCloud": {"userData": "#"}}],
        },
        {"evictionStrategy": "None", "terminationGracePeriodSeconds": 0},
        {"startStrategy": "Paused"},
    ],
)
def test_what_is_the_guests_own_affair_is_taken_in_silence(patch: Object) -> None:
    response = admit(MINIMAL | {"spec": merged(MINIMAL["spec"], instance(patch))})
    assert response == {"allowed": True, "warnings": []}
