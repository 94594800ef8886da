from datetime import timedelta

import pytest

from clusters.kubevirt.controller import node as reconciler
from clusters.kubevirt.controller.heartbeat import TIMEOUT, beat, silence
from clusters.kubevirt.controller.writes import Patch
from tests.unit.virt_controller_support import NOW, make_node, make_vmi
from virtflow.kube import Object

SECOND = timedelta(seconds=1)


def on_node(uid: str, phase: str = "Running", node: str = "node-1") -> Object:
    vmi = make_vmi(phase, nodeName=node)
    vmi["metadata"]["uid"] = uid
    return vmi


def pod_of(uid: str, phase: str) -> Object:
    owner = {"kind": "VirtualMachineInstance", "name": "test-vm", "uid": uid, "controller": True}
    return {"metadata": {"ownerReferences": [owner]}, "status": {"phase": phase}}


def test_a_node_is_responsive_until_it_has_been_silent_for_too_long() -> None:
    node = make_node("node-1", NOW)
    assert reconciler.is_responsive(node, NOW + TIMEOUT)
    assert not reconciler.is_responsive(node, NOW + TIMEOUT + SECOND)
    assert not reconciler.is_responsive(None, NOW)
    left = reconciler.time_left(node, NOW + SECOND)
    assert left is not None
    assert not reconciler.is_responsive(node, NOW + SECOND + left)


@pytest.mark.parametrize("annotations", [{}, {"kubevirt.io/heartbeat": "long ago"}])
def test_a_node_that_was_never_heard_of_is_not_given_up(annotations: Object) -> None:
    node = make_node("node-1", NOW)
    node["metadata"]["annotations"] = annotations
    assert reconciler.is_responsive(node, NOW + 100 * TIMEOUT)
    assert reconciler.time_left(node, NOW) is None


def test_a_beat_ends_the_silence() -> None:
    node = make_node("node-1", NOW - TIMEOUT)
    node["metadata"] |= beat(NOW)["metadata"]
    assert silence(node, NOW) == timedelta(0)
    assert node["metadata"]["labels"]["kubevirt.io/schedulable"] == "true"


def test_a_silent_node_is_marked_and_only_instances_without_a_living_pod_have_failed() -> None:
    vmis = [
        on_node("alive"),
        on_node("ended"),
        on_node("without"),
        on_node("over", "Succeeded"),
        on_node("elsewhere", node="node-2"),
    ]
    pods = [pod_of("alive", "Running"), pod_of("ended", "Failed")]
    node = make_node("node-1", NOW)
    marked, *failed = reconciler.plan("node-1", node, vmis, pods)
    assert isinstance(marked, Patch)
    assert marked.patch == {"metadata": {"labels": {"kubevirt.io/schedulable": "false"}}}
    assert [write.target["metadata"]["uid"] for write in failed if isinstance(write, Patch)] == ["ended", "without"]
    first = failed[0]
    assert isinstance(first, Patch)
    assert first.patch == [
        {"op": "test", "path": "/status/phase", "value": "Running"},
        {"op": "replace", "path": "/status/phase", "value": "Failed"},
        {"op": "add", "path": "/status/reason", "value": "NodeUnresponsive"},
    ]
    node["metadata"]["labels"]["kubevirt.io/schedulable"] = "false"
    assert reconciler.plan("node-1", node, vmis, pods) == failed
    assert reconciler.plan("node-1", None, vmis, pods) == failed
