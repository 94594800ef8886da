import pytest

from clusters.kubevirt.handler import report
from tests.unit.virt_controller_support import NOW, TIME, deleting, make_vmi
from virtflow.kube import Object

NOT_RUNNING = {"type": "Ready", "status": "False", "reason": "GuestNotRunning"}
OTHER = {"type": "Other", "status": "True"}


def scheduled() -> Object:
    return make_vmi("Scheduled", nodeName="node-1", conditions=[NOT_RUNNING, OTHER])


def test_a_scheduled_instance_is_running_and_ready() -> None:
    vmi = scheduled()
    new = report(vmi, NOW)
    assert new is not None
    assert new["status"]["phase"] == "Running"
    assert new["status"]["conditions"] == [
        {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": TIME},
        OTHER,
    ]
    assert new["status"]["phaseTransitionTimestamps"][-1] == {
        "phase": "Running",
        "phaseTransitionTimestamp": TIME,
    }
    untouched = ("phase", "conditions", "phaseTransitionTimestamps")
    assert {k: v for k, v in new["status"].items() if k not in untouched} == {
        k: v for k, v in vmi["status"].items() if k not in untouched
    }
    assert report(new, NOW) is None


@pytest.mark.parametrize("phase", ["Scheduled", "Running"])
def test_a_deleted_guest_has_succeeded(phase: str) -> None:
    new = report(deleting(make_vmi(phase, nodeName="node-1")), NOW)
    assert new is not None
    assert new["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("phase", ["Pending", "Scheduling", "Succeeded", "Failed"])
def test_what_is_on_no_node_is_not_its_business(phase: str) -> None:
    assert report(make_vmi(phase), NOW) is None
    assert report(deleting(make_vmi(phase)), NOW) is None
    assert report(make_vmi("Scheduled"), NOW) is None
    new = make_vmi()
    del new["status"]
    assert report(new, NOW) is None


@pytest.mark.parametrize(
    ("of_pod", "phase"), [("Succeeded", "Succeeded"), ("Failed", "Failed"), ("Unknown", "Failed")]
)
def test_a_guest_ends_as_its_launcher_pod_does(of_pod: str, phase: str) -> None:
    ended = {"status": {"phase": of_pod}}
    new = report(make_vmi("Running", nodeName="node-1"), NOW, ended)
    assert new is not None
    assert new["status"]["phase"] == phase
    assert new["status"]["phaseTransitionTimestamps"][-1]["phase"] == phase
    assert report(new, NOW, ended) is None
    deleted = report(deleting(make_vmi("Running", nodeName="node-1")), NOW, ended)
    assert deleted is not None
    assert deleted["status"]["phase"] == "Succeeded"


def test_a_guest_may_start_paused() -> None:
    vmi = scheduled()
    vmi["spec"]["startStrategy"] = "Paused"
    new = report(vmi, NOW)
    assert new is not None
    assert new["status"]["phase"] == "Running"
    assert new["status"]["conditions"][-1].items() >= {"type": "Paused", "reason": "PausedByUser"}.items()
