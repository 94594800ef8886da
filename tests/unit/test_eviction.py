import pytest

from clusters.kubevirt.api.eviction import instance_of, refusal
from tests.unit.virt_controller_support import NAMESPACE, make_vmi
from virtflow.kube import Object

EVACUATION = f'Eviction triggered evacuation of VMI "{NAMESPACE}/test-vm"'


def make_pod(**metadata: Object) -> Object:
    labels, annotations = {"kubevirt.io": "virt-launcher"}, {"kubevirt.io/domain": "test-vm"}
    meta = {"labels": labels, "annotations": annotations, **metadata}
    return {"metadata": meta, "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    ("strategy", "status", "message"),
    [
        (None, {}, None),
        ("None", {}, None),
        ("LiveMigrateIfPossible", {}, None),
        ("LiveMigrate", {}, "VMI test-vm is configured with an eviction strategy but is not live-migratable"),
        ("External", {}, EVACUATION),
        ("External", {"evacuationNodeName": "node-1"}, f"Evacuation in progress: {EVACUATION}"),
        ("External", {"nodeName": "node-2"}, "Eviction request for target Pod"),
    ],
)
def test_the_eviction_strategy_decides(strategy: str | None, status: Object, message: str | None) -> None:
    vmi = make_vmi("Running", nodeName="node-1")
    vmi["status"] |= status
    vmi["spec"].pop("evictionStrategy", None)
    if strategy:
        vmi["spec"]["evictionStrategy"] = strategy
    assert refusal(make_pod(), vmi) == message


def test_only_a_launcher_that_has_not_ended_is_an_instances() -> None:
    assert instance_of(make_pod()) == "test-vm"
    assert instance_of(make_pod(labels={})) is None
    assert instance_of(make_pod(annotations={})) is None
    assert instance_of({**make_pod(), "status": {"phase": "Failed"}}) is None
