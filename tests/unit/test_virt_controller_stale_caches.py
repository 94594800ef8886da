"""What virt-controller does while a cache of its own lags behind, or an answer does not say what has been done."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from clusters.kubevirt.controller.lease import Lease
from clusters.kubevirt.controller.objects import controller_of, is_deleting, phase_of
from clusters.kubevirt.controller.process import Controller
from clusters.kubevirt.handler import Handler
from tests.unit.simulated_apiserver import ApiServer, Line, split
from tests.unit.simulated_programs import INSTANCES, fresh, running
from tests.unit.virt_controller_support import NAMESPACE, make_vm
from tests.unit.virtual_time import run_in_virtual_time, virtual_now
from virtflow.kube import Object, Response

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
