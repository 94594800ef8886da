import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.controller.launcher import launcher_pod, memory_overhead
from tests.unit.virt_controller_support import make_vmi
from virtflow.kube import Object


def with_resources(requests: Object, limits: Object | None = None) -> Object:
    vmi = make_vmi()
    vmi["spec"]["domain"]["resources"] = {"requests": requests, **({"limits": limits} if limits else {})}
    return vmi


@pytest.mark.parametrize(("memory", "overhead"), [("1Gi", 304087040), ("900Ti", 1933037273089)])
def test_the_recorded_memory_overheads(memory: str, overhead: int) -> None:
    assert memory_overhead(with_resources({"memory": memory})) == overhead


def test_further_cpus_cost_memory() -> None:
    vmi = make_vmi()
    vmi["spec"]["domain"]["cpu"] = {"cores": 2, "sockets": 2}
    assert memory_overhead(vmi) - memory_overhead(make_vmi()) == 3 * 8 * 2**20


@pytest.mark.parametrize(
    ("requests", "limits", "cpu", "memory", "limit"),
    [
        ({"cpu": "1", "memory": "1Gi"}, None, "1", "1314Mi", None),
        ({"memory": "900Ti"}, None, "100m", "991493502271489", None),
        ({"memory": "1Gi"}, {"cpu": "2", "memory": "2Gi"}, "2", "1314Mi", "2338Mi"),
    ],
)
def test_what_the_pod_requests(
    requests: Object, limits: Object | None, cpu: str, memory: str, limit: str | None
) -> None:
    resources = launcher_pod(with_resources(requests, limits))["spec"]["containers"][0]["resources"]
    assert resources["requests"]["cpu"] == cpu
    assert resources["requests"]["memory"] == memory
    assert resources["limits"].get("memory") == limit
    assert resources["limits"]["devices.kubevirt.io/kvm"] == "1"


def test_the_pod_of_an_instance() -> None:
    pod = launcher_pod(make_vmi())
    assert pod["metadata"]["labels"] == {
        "app": "test",
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": "vmi-uid",
        "vm.kubevirt.io/name": "test-vm",
        "vmi.kubevirt.io/id": "test-vm",
    }
    assert pod["spec"]["nodeSelector"] == {
        "kubernetes.io/arch": "amd64",
        "kubevirt.io/schedulable": "true",
        "machine-type.node.kubevirt.io/q35": "true",
    }
    assert [each["name"] for each in pod["spec"]["initContainers"]] == ["guest-console-log", "volumedisk0"]
    assert [each["name"] for each in pod["spec"]["volumes"]][-3:] == [
        "disk0",
        "launcher-volume",
        "hotplug-disks",
    ]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 60


def test_its_name_is_the_uids_and_fits() -> None:
    vmi = make_vmi()
    first = launcher_pod(vmi)["metadata"]
    assert first["name"] == launcher_pod(vmi)["metadata"]["name"]
    assert first["name"].startswith("virt-launcher-test-vm-")
    vmi["metadata"] |= {"uid": "another", "name": "n" * 63}
    second = launcher_pod(vmi)["metadata"]
    assert second["name"][-5:] != first["name"][-5:]
    assert len(second["name"]) == 63


@given(st.lists(st.sampled_from(["zone", "disk"]), max_size=2, unique=True))
def test_the_instances_own_affinity_is_kept(keys: list[str]) -> None:
    vmi = make_vmi()
    terms = [{"matchExpressions": [{"key": key, "operator": "Exists"}]} for key in keys]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    if terms:
        vmi["spec"]["affinity"] = {"nodeAffinity": {required: {"nodeSelectorTerms": terms}}}
    vmi["spec"].setdefault("affinity", {})["podAntiAffinity"] = {"kept": True}
    affinity = launcher_pod(vmi)["spec"]["affinity"]
    found = affinity["nodeAffinity"][required]["nodeSelectorTerms"]
    assert affinity["podAntiAffinity"] == {"kept": True}
    assert [term["matchExpressions"][:-1] for term in found] == [term["matchExpressions"] for term in terms] or (
        not terms and found[0]["matchExpressions"][:-1] == []
    )
    assert all(term["matchExpressions"][-1]["operator"] == "DoesNotExist" for term in found)


def test_what_an_instance_says_of_its_names_is_its_pods() -> None:
    vmi = make_vmi()
    config = {"nameservers": ["192.0.2.1"]}
    said = {"hostname": "web", "subdomain": "front", "dnsPolicy": "None", "dnsConfig": config}
    vmi["spec"] |= said
    pod = launcher_pod(vmi)["spec"]
    assert {name: pod[name] for name in said} == said
    assert launcher_pod(make_vmi())["spec"]["hostname"] == "test-vm"
