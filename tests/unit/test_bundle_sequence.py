"""A bundle's sequence: read and matched beside whatever else is gathered, for as long as there is time."""

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from temporalio.client import Client

from clusters.endpoints import Endpoints
from tests.unit.test_bundle import FAILURE
from virtflow.bundle import sequence
from virtflow.bundle.parts import Part, Scene
from virtflow.kube import KubeClient, Object
from workflows.models import ObservedArrow

pytestmark = pytest.mark.anyio

NAMESPACE = f"a-{FAILURE.mark}"
MOST = 1 << 20
DEADLINE, PATIENCE = 10.0, 20
HPA: Object = {"metadata": {"name": "an-autoscaler"}, "spec": {"scaleTargetRef": {"name": "a-set"}, "maxReplicas": 3}}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 70}}}


def create(number: int) -> str:
    """What the kube-apiserver writes of a tenant's machine."""
    return json.dumps(
        {
            "kind": "Event",
            "stage": "ResponseComplete",
            "auditID": f"request-{number}",
            "verb": "create",
            "requestReceivedTimestamp": f"2026-11-23T12:00:{number:02}Z",
            "user": {"username": "gateway"},
            "impersonatedUser": {"username": f"system:serviceaccount:{NAMESPACE}:tenant-a-user"},
            "objectRef": {"resource": "virtualmachines", "namespace": NAMESPACE, "name": f"vm-{number}"},
            "responseStatus": {"code": 201},
            "responseObject": {"metadata": {"name": f"vm-{number}", "uid": f"uid-{number}"}},
        },
        separators=(",", ":"),
    )


class Clock:
    """Stands still, but where a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sequence, "time", clock)
    return clock


class Kube:
    """Knows these autoscalers, or is as silent as one that is stopped."""

    def __init__(self, *autoscalers: Object) -> None:
        self._autoscalers = list(autoscalers)

    async def list(self, *_: Any) -> list[Object]:
        if not self._autoscalers:
            await asyncio.Event().wait()
        return self._autoscalers


async def gathered(folder: Path, number: int, kube: Kube, deadline: float = DEADLINE) -> Part:
    """Of a scenario with so many machines."""
    (folder / "audit.log").write_text("".join(f"{create(each)}\n" for each in range(number)))
    part = Part(folder, MOST)
    logs = SimpleNamespace(access_log=folder / "gateway-access.log", audit_log=folder / "audit.log")
    scene = Scene(FAILURE, cast(Endpoints, logs), cast(KubeClient, kube), cast(Client, None), deadline)
    with anyio.fail_after(PATIENCE):
        await sequence.gather_sequence(part, scene)
    return part


async def test_each_machine_is_matched_beside_the_event_loop_until_the_time_is_over(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()

    def slowly(*_: object) -> Sequence[ObservedArrow]:
        threads.add(threading.current_thread())
        clock.now += 4
        return []

    monkeypatch.setattr(sequence, "observe_request_and_create", slowly)
    part = await gathered(tmp_path, 5, Kube())
    assert threading.main_thread() not in threads
    told = (tmp_path / "sequence.txt").read_text()
    assert [f"/vm-{each}, created by" in told for each in range(5)] == [True, True, True, False, False]
    assert len((tmp_path / "writes.txt").read_text().splitlines()) == 5
    assert part.left_out == [
        "the machines' arrows: not all, there was no time for more",
        "the autoscalers' decisions, whose targets the kube-apiserver knows: TimeoutError",
    ]


async def test_what_was_not_read_for_want_of_time_is_named(tmp_path: Path, clock: Clock) -> None:
    clock.now = DEADLINE + 1
    part = await gathered(tmp_path, 5, Kube(HPA))
    assert part.files == []
    assert part.left_out == ["audit.log: not all, there was no time for more"]


async def test_a_silent_kube_apiserver_costs_the_autoscalers_alone(tmp_path: Path, clock: Clock) -> None:
    part = await gathered(tmp_path, 2, Kube(), deadline=0.1)
    assert [name for name, _, _ in part.files] == ["sequence.txt", "writes.txt"]
    assert [line.partition(",")[0] for line in part.left_out] == ["the autoscalers' decisions"]


async def test_an_autoscaler_that_has_no_share_of_the_cpu_costs_no_other_its_decisions(
    tmp_path: Path, clock: Clock
) -> None:
    other: Object = {"metadata": {"name": "another"}, "spec": {**HPA["spec"], "metrics": [CPU]}}
    part = await gathered(tmp_path, 1, Kube(HPA, other))
    told = (tmp_path / "sequence.txt").read_text()
    assert f"{NAMESPACE}/vm-0, created by" in told
    assert "scaled by another" in told
    assert "scaled by an-autoscaler" not in told
    [lost] = part.left_out
    assert "has no metric of CPU utilization" in lost
