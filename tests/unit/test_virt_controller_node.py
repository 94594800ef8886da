import asyncio
from datetime import timedelta
from unittest import mock

import pytest

from clusters.kubevirt.controller import node as reconciler
from clusters.kubevirt.controller.events import Note, Recorder
from clusters.kubevirt.controller.heartbeat import TIMEOUT, beat, silence
from clusters.kubevirt.controller.writes import Patch, Write
from clusters.kubevirt.objects import format_time
from tests.unit.patching import apply_operation
from tests.unit.simulated_apiserver import ApiServer
from tests.unit.simulated_programs import running
from tests.unit.virt_controller_support import NOW, make_node, make_vmi
from tests.unit.virtual_time import run_in_virtual_time, virtual_now
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


def test_of_a_clock_that_was_set_back_nobody_waits_for_the_old_time() -> None:
    left = reconciler.time_left(make_node("node-1", NOW + 10 * TIMEOUT), NOW)
    assert left is not None
    assert left <= TIMEOUT + SECOND


def test_a_silent_node_is_marked_and_only_instances_without_a_living_pod_have_failed() -> None:
    vmis = [on_node("alive"), on_node("ended"), on_node("without")]
    pods = [pod_of("alive", "Running"), pod_of("ended", "Failed")]
    node = make_node("node-1", NOW)
    marked, *failed = reconciler.plan(node, vmis, pods)
    assert isinstance(marked, Patch)
    assert marked.done is not None
    assert marked.done.component == "node-controller"
    assert [write.target["metadata"]["uid"] for write in failed if isinstance(write, Patch)] == ["ended", "without"]
    first = failed[0]
    assert isinstance(first, Patch)
    assert first.patch == [
        {"op": "test", "path": "/metadata/uid", "value": "ended"},
        {"op": "test", "path": "/status/phase", "value": "Running"},
        {"op": "replace", "path": "/status/phase", "value": "Failed"},
        {"op": "add", "path": "/status/reason", "value": "NodeUnresponsive"},
    ]
    assert first.done is not None
    assert first.done.component == "node-controller"
    node["metadata"]["labels"]["kubevirt.io/schedulable"] = "false"
    assert reconciler.plan(node, vmis, pods) == failed
    assert reconciler.plan(None, vmis, pods) == failed


def test_a_node_is_not_marked_that_was_heard_of_meanwhile() -> None:
    node = make_node("node-1", NOW - 2 * TIMEOUT)
    (marked,) = reconciler.plan(node, [], [])
    assert isinstance(marked, Patch)
    assert isinstance(marked.patch, list)
    heard_of = make_node("node-1", NOW)
    assert not all(apply_operation(heard_of, each) for each in marked.patch)
    assert heard_of["metadata"]["labels"]["kubevirt.io/schedulable"] == "true"
    assert all(apply_operation(node, each) for each in marked.patch)
    assert node["metadata"]["labels"]["kubevirt.io/schedulable"] == "false"


@pytest.mark.parametrize(
    ("phase", "has_it"), [("Scheduling", False), ("Scheduled", True), ("Running", True), ("Succeeded", False)]
)
def test_whom_a_node_has(phase: str, has_it: bool) -> None:
    assert reconciler.node_of(on_node("one", phase)) == ("node-1" if has_it else None)


@pytest.mark.anyio
async def test_an_event_of_a_node_is_in_a_namespace_and_the_node_is_in_none() -> None:
    server = ApiServer()
    recorder = Recorder(server, "test")
    recorder.record(Note(make_node("node-1", NOW), "Normal", "Test", "a test"))
    task = asyncio.create_task(recorder.run())
    await server.until(lambda: server.all("events"))
    task.cancel()
    (event,) = server.all("events")
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"].keys() == {"apiVersion", "kind", "name", "uid", "resourceVersion"}


def test_a_beat_in_the_future_is_none() -> None:
    run_in_virtual_time(set_back())


async def set_back() -> None:
    server = ApiServer(clock=virtual_now)
    for node in server.all("nodes"):
        node["metadata"]["annotations"]["kubevirt.io/heartbeat"] = format_time(virtual_now() + timedelta(hours=1))
    async with running(server):
        await asyncio.sleep(5)
        for node in server.all("nodes"):
            silent = silence(node, virtual_now())
            assert silent is not None
            assert timedelta(0) <= silent < 10 * SECOND


def test_a_node_that_is_gone_costs_a_look_at_its_own_instances_only() -> None:
    run_in_virtual_time(gone_node())


async def gone_node() -> None:
    server = ApiServer(clock=virtual_now)
    looked_at: list[list[str]] = []

    def plan(node: Object | None, vmis: list[Object], pods: list[Object]) -> list[Write]:
        looked_at.append([vmi["metadata"]["name"] for vmi in vmis])
        return reconciler_plan(node, vmis, pods)

    reconciler_plan = reconciler.plan
    with mock.patch.object(reconciler, "plan", plan):
        async with running(server):
            await asyncio.sleep(5)
            for name, of in (("one", "node-1"), ("two", "gone")):
                vmi = make_vmi("Running", nodeName=of)
                vmi["metadata"] |= {"name": name, "uid": name}
                await server.add("virtualmachineinstances", vmi)
            await asyncio.sleep(5)
    assert looked_at[0] == ["two"]
    assert all("one" not in names for names in looked_at)
