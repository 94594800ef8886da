"""What a wait that ran out is explained by, from objects as the cluster writes them, and when nothing answers."""

from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from activities.causes import NOBODY, Causes, cause_of_machine, latest_warnings
from tests.unit.kube_support import client_of
from virtflow.kube import Object
from workflows.models import ReplicaSetRef, VirtualMachineRef

MACHINE = VirtualMachineRef("tenant-a-1", "vm", "u1")
REFUSED = 'pods "virt-launcher-vm-x" is forbidden: exceeded quota: tenant-a-quota'
NO_ROOM = "0/3 nodes are available: 3 Insufficient memory."


def condition(kind: str, status: str, reason: str, message: str = "") -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def vm(*conditions: Object, **spec: object) -> Object:
    meta = {"name": "vm", "namespace": "tenant-a-1", "uid": "u1"}
    return {"metadata": meta, "spec": {"runStrategy": "Always", **spec}, "status": {"conditions": list(conditions)}}


def pod(**status: object) -> Object:
    return {"metadata": {"name": "virt-launcher-vm-x"}, "spec": {"nodeName": "node-1"}, "status": status}


def event(reason: str, message: str, second: int, name: str = "virt-launcher-vm-x", kind: str = "Warning") -> Object:
    return {
        "metadata": {"creationTimestamp": "2026-11-23T10:00:00Z"},
        "type": kind,
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "Pod", "name": name},
        "lastTimestamp": f"2026-11-23T10:00:{second:02}Z",
    }


NOT_READY = condition("Ready", "False", "GuestNotRunning", "Guest VM is not reported as running")
WELL: Object = {
    "metadata": {"name": "node-1"},
    "status": {"conditions": [condition("Ready", "True", "KubeletReady")]},
}
ILL: Object = {
    "metadata": {"name": "node-1"},
    "status": {"conditions": [condition("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting")]},
}
PULLING = {
    "name": "compute",
    "state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}},
}
STARTING = {"name": "compute", "state": {"waiting": {"reason": "ContainerCreating"}}}


@pytest.mark.parametrize(
    ("machine", "instance", "pods", "nodes", "events", "cause"),
    [
        (
            vm(NOT_READY, condition("Failure", "True", "FailedCreate", REFUSED)),
            None,
            [],
            [],
            [],
            f"{REFUSED} (condition Failure=True, FailedCreate)",
        ),
        (
            vm(NOT_READY),
            vm(NOT_READY, condition("PodScheduled", "False", "Unschedulable", NO_ROOM)),
            [pod()],
            [],
            [event("FailedScheduling", "an older word", 1)],
            f"{NO_ROOM} (condition PodScheduled=False, Unschedulable)",
        ),
        (
            vm(NOT_READY),
            vm(NOT_READY),
            [pod()],
            [ILL],
            [],
            "its node node-1 is not ready: Kubelet stopped posting (condition Ready=Unknown, NodeStatusUnknown)",
        ),
        (
            vm(NOT_READY),
            vm(NOT_READY),
            [pod(containerStatuses=[PULLING])],
            [WELL],
            [],
            'its container compute is waiting, ImagePullBackOff: Back-off pulling image "x"',
        ),
        (
            vm(NOT_READY),
            vm(NOT_READY),
            [pod(containerStatuses=[STARTING])],
            [WELL],
            [event("FailedMount", "no such volume", 1)],
            "no such volume (event FailedMount of Pod virt-launcher-vm-x)",
        ),
        (vm(runStrategy="Halted"), None, [], [], [], "it is not to run (spec.runStrategy is Halted)"),
        (vm(), None, [], [], [], "virt-controller has made no instance of it"),
        (
            vm(NOT_READY),
            vm(),
            [],
            [],
            [event("Other", "of another machine", 1, name="virt-launcher-other")],
            "Guest VM is not reported as running (condition Ready=False, GuestNotRunning)",
        ),
        (vm(), vm(), [], [WELL], [], NOBODY),
    ],
)
def test_what_tells_most_is_the_cause(
    machine: Object, instance: Object, pods: list[Object], nodes: list[Object], events: list[Object], cause: str
) -> None:
    assert cause_of_machine(machine, instance, pods, nodes, events) == cause


def test_the_newest_warnings_come_first_and_what_is_alike_is_told_once() -> None:
    series = {**event("FailedScheduling", NO_ROOM, 0), "lastTimestamp": None}
    series["series"] = {"lastObservedTime": "2026-11-23T10:00:30.000000Z"}
    told = latest_warnings(
        [
            event("FailedMount", "no such volume", 10, name="pod-1"),
            event("FailedMount", "no such volume at all", 20, name="pod-2"),
            event("Started", "well", 50, kind="Normal"),
            series,
            event("Evicted", "long ago", 1),
        ]
    )
    assert told == [
        f"{NO_ROOM} (event FailedScheduling of Pod virt-launcher-vm-x)",
        "no such volume at all (event FailedMount of Pod pod-2)",
    ]


half_written = st.sampled_from([{}, {"conditions": None}, {"conditions": []}, {"containerStatuses": [{"name": "c"}]}])


@given(half_written, half_written, st.sampled_from([{}, {"series": None}, {"lastTimestamp": None}]))
def test_half_written_objects_are_no_errors(of_machine: Object, of_pod: Object, of_event: Object) -> None:
    machine = {**vm(), "status": of_machine}
    warning = {**of_event, "metadata": {}, "type": "Warning", "involvedObject": {}}
    bare = {"metadata": {"name": "p"}, "spec": {}, "status": of_pod}
    assert cause_of_machine(machine, machine, [bare], [bare], [warning]) == NOBODY


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("there", "cause"),
    [
        (None, "there is no such virtual machine any more"),
        (
            {**vm(), "metadata": {"name": "vm", "uid": "u2"}},
            "it is gone, and another virtual machine has its name",
        ),
    ],
)
async def test_a_machine_that_is_not_there_is_not_asked_about(
    tmp_path: Path, there: Object | None, cause: str
) -> None:
    async def nobody_asks(_: web.Request) -> web.StreamResponse:
        raise AssertionError

    async with client_of(nobody_asks, tmp_path) as kube:
        assert await Causes(kube).of_machine(MACHINE, there, None) == cause


@pytest.mark.anyio
async def test_where_nothing_can_be_read_that_is_told_beside_what_is_known(tmp_path: Path) -> None:
    async def away(_: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "message": "etcd has no leader"}, status=503)

    machine = vm(condition("Failure", "True", "FailedCreate", REFUSED))
    async with client_of(away, tmp_path) as kube:
        causes = Causes(kube)
        assert await causes.of_machine(MACHINE, machine, None) == (
            f"{REFUSED} (condition Failure=True, FailedCreate), and what there is more cannot be read: "
            f"etcd has no leader"
        )
        assert await causes.of_namespace("tenant-a-1") == ["its events cannot be read: etcd has no leader"]
        target = ReplicaSetRef("tenant-a-1", "set", "hpa")
        assert await causes.of_no_figures(target, {}, {}) == "what it is about cannot be read: etcd has no leader"


@pytest.mark.anyio
async def test_metrics_that_are_refused_are_what_is_told(tmp_path: Path) -> None:
    selected = {
        "metadata": {"name": "p", "labels": {"app": "scale"}},
        "spec": {"containers": [{"name": "compute", "resources": {"requests": {"cpu": "1"}}}]},
    }

    async def without_metrics(request: web.Request) -> web.StreamResponse:
        if "metrics.k8s.io" in request.path:
            return web.json_response({"message": "the server is currently unable to handle the request"}, status=503)
        assert request.query.get("labelSelector", "app=scale") == "app=scale"
        return web.json_response({"items": [selected]})

    async with client_of(without_metrics, tmp_path) as kube:
        replica_set = {"status": {"labelSelector": "app=scale"}}
        told = await Causes(kube).of_no_figures(ReplicaSetRef("tenant-a-1", "set", "hpa"), {}, replica_set)
    assert told.startswith("metrics-server gives no figures: the server is currently unable to handle the request.")
