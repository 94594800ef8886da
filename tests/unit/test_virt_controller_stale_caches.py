"""What virt-controller does while a cache of its own lags behind, or an answer does not say what has been done."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from clusters.kubevirt.controller import node
from clusters.kubevirt.controller.events import Recorder
from clusters.kubevirt.controller.lease import Lease
from clusters.kubevirt.controller.process import Controller
from clusters.kubevirt.controller.restart_required import placement_writes
from clusters.kubevirt.controller.vm import adoption_writes, follow_generation
from clusters.kubevirt.controller.vmirs import scale_writes
from clusters.kubevirt.controller.workqueue import is_lost_race
from clusters.kubevirt.controller.writes import Create, Patch, Write, Writer
from clusters.kubevirt.handler import Handler
from clusters.kubevirt.objects import controller_of, is_deleting, phase_of
from tests.unit.simulated_apiserver import ApiServer, Line, refusal, split
from tests.unit.simulated_programs import INSTANCES, REPLICA_SETS, fresh, running
from tests.unit.virt_controller_support import NAMESPACE, NOW, make_vm, make_vmi, make_vmirs
from tests.unit.virtual_time import run_in_virtual_time, virtual_now
from virtflow.kube import KubeError, Object, Response
from virtflow.kube.resources import VMIS

MACHINES = "virtualmachines"


class BadLine(Line):
    """Loses its watches of pods as soon as these tell of anything, while it is told to."""

    loses_pods = False
    lists = 0

    async def send(self, method: str, path: str, **kwargs: Any) -> Response:
        self.lists += method == "GET" and split(path)[2] is None
        return await super().send(method, path, **kwargs)

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        async for event in super().stream(path, query, timeout):
            if self.loses_pods and split(path)[0] == "pods":
                raise ConnectionResetError("the watch is lost")
            yield event


def instance(server: ApiServer) -> Object | None:
    return server.find(INSTANCES, "test-vm")


def is_up(server: ApiServer) -> bool:
    vmi = instance(server)
    return vmi is not None and phase_of(vmi) == "Running"


def lead(line: Line, identity: str) -> "asyncio.Task[None]":
    return asyncio.create_task(Controller(line).run(Lease(line, "kubevirt", "virt-controller", identity)))


async def end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_who_has_waited_to_lead_looks_at_what_there_is_by_then() -> None:
    async def test() -> None:
        server = ApiServer(clock=virtual_now)
        line = BadLine(server)
        first = lead(Line(server), "first")
        others = [asyncio.create_task(Handler(server).run()), asyncio.create_task(server.run_nodes())]
        await asyncio.sleep(3)
        second = lead(line, "second")
        await asyncio.sleep(3)
        line.loses_pods = True
        noise: Object = {"name": "noise", "namespace": NAMESPACE, "uid": "noise", "labels": {}}
        await server.add("pods", {"metadata": noise, "spec": {}, "status": {"phase": "Running"}})
        # By now the watch is not even tried again for the next seconds.
        await asyncio.sleep(4)
        await server.add(MACHINES, fresh(make_vm()))
        await server.until(lambda: is_up(server))
        uid = (instance(server) or {})["metadata"]["uid"]
        await end(first)
        line.loses_pods = False
        await asyncio.sleep(60)
        vmi = instance(server) or {}
        await end(second, *others)
        assert (vmi["metadata"]["uid"], phase_of(vmi)) == (uid, "Running")
        assert server.writes["POST pods"] == 1

    run_in_virtual_time(test())


def test_who_leads_at_once_lists_nothing_a_second_time() -> None:
    async def test() -> None:
        server = ApiServer(clock=virtual_now)
        line = BadLine(server)
        only = lead(line, "only")
        await asyncio.sleep(60)
        await end(only)
        assert line.lists == 6

    run_in_virtual_time(test())


class LateMachines(ApiServer):
    """Once it is asked to, tells of virtual machines later than of all else."""

    lags = False

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        async for event in super().stream(path, query, timeout):
            if self.lags and split(path)[0] == MACHINES:
                await asyncio.sleep(0.3)
            yield event


def test_a_machine_that_goes_does_not_take_back_the_instance_it_lets_go() -> None:
    async def test() -> None:
        server = LateMachines(clock=virtual_now)
        await server.add(MACHINES, fresh(make_vm()))
        async with running(server):
            await server.until(lambda: is_up(server))
            await asyncio.sleep(2)
            uid = (instance(server) or {})["metadata"]["uid"]
            server.lags = True
            await server.remove_only(MACHINES, "test-vm")
            await asyncio.sleep(60)
            vmi = instance(server) or {}
            assert server.all(MACHINES) == []
            assert (vmi["metadata"]["uid"], controller_of(vmi), is_deleting(vmi)) == (uid, None, False)

    run_in_virtual_time(test())


def test_an_instance_whose_machine_is_forced_away_is_let_go_though_its_end_is_heard_of_last() -> None:
    async def test() -> None:
        server = LateMachines(clock=virtual_now)
        await server.add(MACHINES, fresh(make_vm(strategy="Once")))
        async with running(server):
            await server.until(lambda: is_up(server))
            for pod in server.all("pods"):
                await server.tell("pods", pod["metadata"]["name"], {"phase": "Succeeded"})
            await server.until(lambda: phase_of(instance(server) or {}) == "Succeeded")
            await asyncio.sleep(2)
            server.lags = True
            await server.force_away(MACHINES, "test-vm")
            # Until it hears of the end, the controller starts another one, which belongs to nobody.
            await asyncio.sleep(60)
            assert instance(server) is None

    run_in_virtual_time(test())


class Answers(ApiServer):
    """Answers the first creates of a kind otherwise: done all the same, or not."""

    def __init__(self, plural: str, answers: list[Response], *, done: bool) -> None:
        super().__init__(clock=virtual_now)
        self.told: set[str] = set()
        self._plural, self._answers, self._done = plural, answers, done

    async def _write(self, method: str, plural: str, key: tuple[str, str, str], body: Any) -> Response:
        if (method, plural) == ("POST", self._plural) and self._answers:
            if self._done:
                await super()._write(method, plural, key, body)
            return self._answers.pop()
        return await super()._write(method, plural, key, body)

    async def _store(self, plural: str, obj: Object, kind: str) -> Object:
        self.told |= {each.get("reason", "") for each in obj.get("status", {}).get("conditions", [])}
        return await super()._store(plural, obj, kind)

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        async for event in super().stream(path, query, timeout):
            if split(path)[0] == INSTANCES:
                await asyncio.sleep(0.2)
            yield event


def test_an_answer_that_it_took_too_long_does_not_make_a_member_twice() -> None:
    async def test() -> None:
        server = Answers(INSTANCES, [refusal(504, "the request did not complete in time")], done=True)
        await server.add(REPLICA_SETS, fresh(make_vmirs(1)))
        async with running(server):
            await asyncio.sleep(30)
            assert server.most_active["vmirs-uid"] == 1
            assert "FailedCreate" not in server.told

    run_in_virtual_time(test())


def test_an_internal_error_that_stays_is_told_in_the_end() -> None:
    async def test() -> None:
        server = Answers(INSTANCES, [refusal(500, "failed calling webhook")] * 30, done=False)
        await server.add(REPLICA_SETS, fresh(make_vmirs(1)))
        async with running(server):
            await server.until(lambda: "FailedCreate" in server.told)
            await server.until(lambda: server.all(INSTANCES) != [], timedelta(minutes=5))

    run_in_virtual_time(test())


def later(vm: Object, spec: Object) -> Object:
    return {**vm, "metadata": {**vm["metadata"], "generation": 2}, "spec": {**vm["spec"], "template": {"spec": spec}}}


@pytest.mark.anyio
async def test_what_was_meant_for_an_instance_does_not_befall_another_one_of_its_name() -> None:
    server, vm = ApiServer(), make_vm()
    seen = make_vmi("Running", vm)
    revision = {"data": {"spec": vm["spec"]}}
    moved = later(vm, {**vm["spec"]["template"]["spec"], "nodeSelector": {"zone": "a"}})
    newer = {**vm, "metadata": {**vm["metadata"], "generation": 2}}
    writes = [
        *follow_generation(newer, seen, revision),
        *placement_writes(moved, seen, revision, NOW),
        *adoption_writes(vm, make_vmi("Running")),
    ]
    assert len(writes) == 3
    for write in writes:
        assert isinstance(write, Patch)
        meta = write.target["metadata"]
        await server.add(INSTANCES, {**write.target, "metadata": {**meta, "uid": "successor"}})
        before = instance(server)
        with pytest.raises(KubeError) as refused:
            await Writer(server, {}, Recorder(server, "test")).perform([write])
        assert is_lost_race(refused.value)
        assert instance(server) == before


TAKEN = refusal(409, "already exists")
GOING = Response(
    403, {"message": "it is being terminated", "details": {"causes": [{"reason": "NamespaceTerminating"}]}}
)


@pytest.mark.parametrize("answer", [TAKEN, GOING])
@pytest.mark.parametrize("plural", [INSTANCES, "pods"])
def test_a_lost_race_is_not_told_as_a_failure(answer: Response, plural: str) -> None:
    async def test() -> None:
        server = Answers(plural, [answer] * 5, done=False)
        await server.add(REPLICA_SETS, fresh(make_vmirs(2)))
        async with running(server):
            await server.until(lambda: len(server.all("pods")) == 2)
            await asyncio.sleep(5)
            assert "FailedCreate" not in server.told
            assert [event for event in server.all("events") if event["reason"] == "FailedCreate"] == []

    run_in_virtual_time(test())


@pytest.mark.anyio
async def test_a_name_that_is_taken_is_drawn_anew() -> None:
    server = Answers(INSTANCES, [TAKEN] * 2, done=False)
    writer = Writer(server, {}, Recorder(server, "test"))
    await writer.perform(scale_writes(make_vmirs(1), []))
    assert len(server.all(INSTANCES)) == 1


@pytest.mark.anyio
async def test_a_name_that_is_not_drawn_is_not_asked_for_again() -> None:
    server = Answers(INSTANCES, [TAKEN], done=False)
    writer = Writer(server, {}, Recorder(server, "test"))
    with pytest.raises(KubeError, match="already exists"):
        await writer.perform([Create(VMIS, make_vmi())])
    assert server.all(INSTANCES) == []


def test_a_pod_that_claims_a_node_for_its_owner_does_not_make_it_a_silent_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up: list[str] = []

    def plan(name: str, *_: object) -> list[Write]:
        given_up.append(name)
        return []

    monkeypatch.setattr(node, "plan", plan)

    async def test() -> None:
        server = ApiServer(clock=virtual_now)
        async with running(server):
            meta: Object = {"name": "stray", "namespace": NAMESPACE, "uid": "stray", "labels": {}, "annotations": {}}
            owner: Object = {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "uid", "controller": True}
            stray = {"metadata": meta | {"ownerReferences": [owner]}, "spec": {}, "status": {"phase": "Failed"}}
            await asyncio.sleep(5)
            await server.add("pods", stray)
            await asyncio.sleep(5)
            assert given_up == []

    run_in_virtual_time(test())
