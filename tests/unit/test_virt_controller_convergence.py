"""The whole of virt-controller and virt-handler against a kube-apiserver that answers when it likes.

Whatever order answers and events come in, whatever people do meanwhile, and however often the controller is
killed: in the end there is what was asked for, and at no time was there too much.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.controller.objects import controller_of, is_deleting, phase_of
from clusters.kubevirt.controller.process import Controller
from clusters.kubevirt.handler import Handler
from tests.unit.virt_controller_support import (
    ApiServer,
    make_vm,
    make_vmirs,
    run_in_virtual_time,
    virtual_now,
)
from virtflow.kube import Object

DEEDS = st.sampled_from(
    ["start", "stop", "kill pod", "fail pod", "delete instance", "crash", "scale 0", "scale 2", "scale 5"]
)
PAUSES = st.integers(min_value=0, max_value=400)


@asynccontextmanager
async def running(server: ApiServer) -> AsyncIterator[Callable[[], None]]:
    """Everything at work within the block; what is yielded kills the controller and starts another one."""
    controller = asyncio.create_task(Controller(server).run())
    others = [asyncio.create_task(Handler(server).run()), asyncio.create_task(server.run_nodes())]

    def crash() -> None:
        nonlocal controller
        controller.cancel()
        others.append(controller)
        controller = asyncio.create_task(Controller(server).run())

    try:
        yield crash
        failed = [task for task in (*others, controller) if task.done() and not task.cancelled()]
        assert failed == []
    finally:
        for task in (*others, controller):
            task.cancel()
        await asyncio.gather(*others, controller, return_exceptions=True)


async def do(server: ApiServer, deed: str, crash: Callable[[], None]) -> None:
    match deed.split():
        case ["start"]:
            await server.edit("virtualmachines", "test-vm", {"runStrategy": "Always"})
        case ["stop"]:
            await server.edit("virtualmachines", "test-vm", {"runStrategy": "Halted"})
        case ["scale", replicas]:
            await server.edit("virtualmachineinstancereplicasets", "test-vmirs", {"replicas": int(replicas)})
        case ["kill", "pod"]:
            for pod in server.all("pods")[:1]:
                await server.remove("pods", pod["metadata"]["name"])
        case ["fail", "pod"]:
            server.pods_to_fail += 1
        case ["delete", "instance"]:
            for vmi in server.all("virtualmachineinstances")[-1:]:
                await server.remove("virtualmachineinstances", vmi["metadata"]["name"])
        case _:
            crash()


def settled(server: ApiServer) -> bool:
    vm = server.find("virtualmachines", "test-vm")
    vmirs = server.find("virtualmachineinstancereplicasets", "test-vmirs")
    assert vm is not None
    assert vmirs is not None
    wanted = vmirs["spec"]["replicas"]
    halted = vm["spec"]["runStrategy"] == "Halted"
    instances = server.all("virtualmachineinstances")
    return (
        len(instances) == wanted + (not halted)
        and all(phase_of(vmi) == "Running" and not is_deleting(vmi) for vmi in instances)
        and owners(server.all("pods")) == sorted(vmi["metadata"]["uid"] for vmi in instances)
        and vm.get("status", {}).get("printableStatus") == ("Stopped" if halted else "Running")
        and vm["status"].get("ready", False) is not halted
        and "startFailure" not in vm["status"]
        and vmirs.get("status", {}).get("readyReplicas", 0) == wanted
        and vmirs["status"].get("replicas", 0) == wanted
    )


def owners(objects: list[Object]) -> list[str]:
    return sorted((controller_of(obj) or {})["uid"] for obj in objects)


def names(objects: list[Object]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), deeds=st.lists(st.tuples(PAUSES, DEEDS), max_size=6))
def test_any_interleaving_converges_and_never_makes_too_many(seed: int, deeds: list[tuple[int, str]]) -> None:
    run_in_virtual_time(interleaving(seed, deeds))


async def interleaving(seed: int, deeds: list[tuple[int, str]]) -> None:
    server = ApiServer(seed, virtual_now)
    await server.add("virtualmachines", fresh(make_vm()))
    await server.add("virtualmachineinstancereplicasets", fresh(make_vmirs(3)))
    largest = max(3, *(int(deed[-1]) for _, deed in deeds if deed.startswith("scale")), 0)
    async with running(server) as crash:
        for pause, deed in deeds:
            for _ in range(pause):
                await asyncio.sleep(0)
            await do(server, deed, crash)
        await server.until(lambda: settled(server), timedelta(minutes=30))
        crashed = any(deed == "crash" for _, deed in deeds)
        assert server.most_active["vm-uid"] <= 1
        # A controller killed between its request and the answer cannot know; the surplus is taken back.
        assert crashed or server.most_active["vmirs-uid"] <= largest


def fresh(obj: Object) -> Object:
    """As a user makes it: without what the controller adds."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in ("annotations", "finalizers")}
    return {**obj, "metadata": meta}


@pytest.mark.anyio
async def test_a_virtual_machine_comes_up_in_as_many_writes_as_with_kubevirt() -> None:
    server = ApiServer()
    async with running(server):
        await server.until(lambda: server.objects == {})
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(lambda: (server.find("virtualmachines", "test-vm") or {})["status"].get("ready", False))
    assert sum(server.writes.values()) <= 18, server.writes


@pytest.mark.anyio
async def test_deleting_a_virtual_machine_leaves_nothing() -> None:
    server = ApiServer()
    async with running(server):
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(lambda: is_running(server))
        await server.remove("virtualmachines", "test-vm")
        await server.until(lambda: {key[0] for key in server.objects} == {"events"})


@pytest.mark.anyio
async def test_a_deleted_guest_ends_as_succeeded() -> None:
    server = ApiServer()
    ends: list[str] = []
    async with running(server):
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(lambda: is_running(server))

        def ended() -> bool:
            ends.extend(map(phase_of, server.all("virtualmachineinstances")))
            return server.all("virtualmachineinstances") == []

        await server.edit("virtualmachines", "test-vm", {"runStrategy": "Halted"})
        await server.until(ended)
    assert ends[-1] == "Succeeded"
    assert "Failed" not in ends


@pytest.mark.anyio
async def test_over_quota_the_refusal_is_told_and_room_made_later_is_found() -> None:
    server = ApiServer()
    server.pod_quota = 0

    def refused() -> bool:
        vm = server.find("virtualmachines", "test-vm") or {}
        conditions = vm.get("status", {}).get("conditions", [])
        return any(each.get("reason") == "FailedCreate" for each in conditions)

    async with running(server):
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(refused)
        vm = server.find("virtualmachines", "test-vm") or {}
        assert vm["status"]["printableStatus"] == "Starting"
        assert [each["reason"] for each in vm["status"]["conditions"]] == ["PodNotExists", "FailedCreate"]
        server.pod_quota = 1
        await server.until(lambda: is_running(server))
        vm = server.find("virtualmachines", "test-vm") or {}
        assert [each["type"] for each in vm["status"]["conditions"]] == ["Ready"]


def test_failed_starts_are_retried_ever_later_and_a_guest_that_ran_is_replaced_at_once() -> None:
    run_in_virtual_time(failed_starts())


async def failed_starts() -> None:
    server = ApiServer(clock=virtual_now)
    server.pods_to_fail = 3
    starts: dict[str, float] = {}

    def comes_to(status: str, number: int) -> bool:
        for vmi in server.all("virtualmachineinstances"):
            starts.setdefault(vmi["metadata"]["uid"], asyncio.get_running_loop().time())
        return told(server, "printableStatus") == status and len(starts) == number

    async with running(server) as crash:
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(lambda: comes_to("CrashLoopBackOff", 1))
        crash()
        await server.until(lambda: comes_to("Running", 4), timedelta(minutes=5))
        assert told(server, "startFailure") is None
        await server.remove("pods", server.all("pods")[0]["metadata"]["name"])
        await server.until(lambda: comes_to("Running", 5))
    first, second, third, replaced = (after - before for before, after in pairwise(starts.values()))
    # The time to retry is kept in whole seconds, rounded down, and what follows takes its time.
    assert 9 <= first < 20
    assert 39 <= second < 65
    assert 89 <= third < 140
    assert replaced < 5


@pytest.mark.anyio
async def test_a_restarted_controller_adopts_what_is_there() -> None:
    server = ApiServer()
    async with running(server) as crash:
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(lambda: is_running(server))
        pods, created = names(server.all("pods")), server.writes["POST pods"]
        crash()
        await server.edit("virtualmachines", "test-vm", {"runStrategy": "RerunOnFailure"})
        await server.until(lambda: told(server, "runStrategy") == "RerunOnFailure")
    assert names(server.all("pods")) == pods
    assert server.writes["POST pods"] == created == 1


def is_running(server: ApiServer) -> bool:
    return told(server, "printableStatus") == "Running"


def told(server: ApiServer, field: str) -> object:
    """What the virtual machine's status says."""
    return (server.find("virtualmachines", "test-vm") or {}).get("status", {}).get(field)
