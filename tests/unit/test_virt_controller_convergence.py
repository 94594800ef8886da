"""The whole of virt-controller and virt-handler against a kube-apiserver that answers when it likes.

Whatever order answers and events come in, whichever answers get lost, whatever people do meanwhile, and between
whichever two requests the controller is killed: in the end there is what was asked for, and at no time was there
too much.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.objects import condition, is_deleting, is_final, phase_of
from tests.unit.simulated_apiserver import ApiServer
from tests.unit.simulated_programs import DEATHS, LOSSES, PAUSES, fresh, owners, running
from tests.unit.virt_controller_support import NAMESPACE, make_vm, make_vmirs
from tests.unit.virtual_time import run_in_virtual_time, virtual_now
from virtflow.kube import Object

Deed = Callable[[ApiServer], Awaitable[None]]


async def ask(server: ApiServer, actions: list[str]) -> None:
    """What virt-api writes for virtctl, if nothing else is still asked for."""
    vmi = server.find("virtualmachineinstances", "test-vm")
    if told(server, "stateChangeRequests") or (actions[0] == "Stop") is (vmi is None):
        return
    stop = {"uid": vmi["metadata"]["uid"]} if vmi else {}
    requests = [{"action": action, **(stop if action == "Stop" else {})} for action in actions]
    await server.tell("virtualmachines", "test-vm", {"stateChangeRequests": requests})


async def set_paused(server: ApiServer, paused: bool) -> None:
    vmi = server.find("virtualmachineinstances", "test-vm")
    if vmi is not None and phase_of(vmi) == "Running":
        conditions = [each for each in vmi["status"]["conditions"] if each["type"] != "Paused"]
        new = [{"type": "Paused", "status": "True", "reason": "PausedByUser"}] if paused else []
        await server.tell("virtualmachineinstances", "test-vm", {"conditions": [*conditions, *new]})


async def end_pods(server: ApiServer, phase: str) -> None:
    for pod in server.all("pods"):
        if pod["status"]["phase"] == "Running" and not is_deleting(pod):
            await server.tell("pods", pod["metadata"]["name"], {"phase": phase})


async def kill_pod(server: ApiServer) -> None:
    for pod in server.all("pods")[:1]:
        await server.remove("pods", pod["metadata"]["name"])


async def fail_pod(server: ApiServer) -> None:
    server.pods_to_fail += 1


async def delete_instance(server: ApiServer) -> None:
    for vmi in server.all("virtualmachineinstances")[-1:]:
        await server.remove("virtualmachineinstances", vmi["metadata"]["name"])


def choose(strategy: str) -> Deed:
    return lambda server: server.edit("virtualmachines", "test-vm", {"runStrategy": strategy})


def scale(replicas: int) -> Deed:
    return lambda server: server.edit("virtualmachineinstancereplicasets", "test-vmirs", {"replicas": replicas})


DEEDS: dict[str, Deed] = {
    **{each: choose(each) for each in ("Always", "Halted", "Manual", "RerunOnFailure", "Once")},
    "start": lambda server: ask(server, ["Start"]),
    "stop": lambda server: ask(server, ["Stop"]),
    "restart": lambda server: ask(server, ["Stop", "Start"]),
    "pause": lambda server: set_paused(server, True),
    "unpause": lambda server: set_paused(server, False),
    "guests power off": lambda server: end_pods(server, "Succeeded"),
    "guests crash": lambda server: end_pods(server, "Failed"),
    "kill pod": kill_pod,
    "fail pod": fail_pod,
    "delete instance": delete_instance,
    "fail node": lambda server: server.fail_node("node-1"),
    "heal node": lambda server: server.heal_node("node-1"),
    "scale 0": scale(0),
    "scale 2": scale(2),
    "scale 5": scale(5),
}
CRASH = "crash"


def settled(server: ApiServer) -> bool:
    vm = server.find("virtualmachines", "test-vm")
    vmirs = server.find("virtualmachineinstancereplicasets", "test-vmirs")
    assert vm is not None
    assert vmirs is not None
    wanted = vmirs["spec"]["replicas"]
    vmi = server.find("virtualmachineinstances", "test-vm")
    instances = server.all("virtualmachineinstances")
    active = [vmi for vmi in instances if not is_final(vmi)]
    living = [pod for pod in server.all("pods") if pod["status"]["phase"] == "Running" and not is_deleting(pod)]
    return (
        is_in_place(vm, vmi)
        and is_told(vm, vmi)
        and len(instances) == wanted + (vmi is not None)
        and all(phase_of(vmi) == "Running" and not is_deleting(vmi) for vmi in active)
        and owners(living) == sorted(vmi["metadata"]["uid"] for vmi in active)
        and set(owners(server.all("pods"))) <= {vmi["metadata"]["uid"] for vmi in instances}
        and vmirs.get("status", {}).get("readyReplicas", 0) == wanted
        and vmirs["status"].get("replicas", 0) == wanted
    )


def is_in_place(vm: Object, vmi: Object | None) -> bool:
    """Whether there is such an instance as there may be in the end, under the VM's strategy."""
    match vm["spec"]["runStrategy"]:
        case "Always":
            return vmi is not None and not is_final(vmi)
        case "Halted":
            return vmi is None
        case "RerunOnFailure":
            return vmi is None or not is_final(vmi)
        case "Once":
            return vmi is not None
        case _:
            return True


def is_told(vm: Object, vmi: Object | None) -> bool:
    status = vm.get("status", {})
    running = "Paused" if vmi is not None and condition(vmi, "Paused") else "Running"
    never_ran = "startFailure" in status
    ended = "CrashLoopBackOff" if never_ran else "Stopped"
    return (
        status.get("printableStatus") == (ended if vmi is None or is_final(vmi) else running)
        and status.get("ready", False) is (vmi is not None and not is_final(vmi))
        and status.get("created", False) is (vmi is not None)
        # Once neither stops nor restarts as asked, nor does it try again what failed.
        and (vm["spec"]["runStrategy"] == "Once" or not ("stateChangeRequests" in status or never_ran))
    )


def kinds(server: ApiServer) -> set[str]:
    return {plural for plural, namespace, _ in server.objects if namespace == NAMESPACE}


def names(objects: list[Object]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    deeds=st.lists(st.tuples(PAUSES, st.sampled_from([*DEEDS, CRASH])), max_size=8),
    deaths=DEATHS,
    losses=LOSSES,
)
def test_any_interleaving_converges_and_never_makes_too_many(
    seed: int, deeds: list[tuple[int, str]], deaths: set[int], losses: float
) -> None:
    run_in_virtual_time(interleaving(seed, deeds, deaths, losses))


async def interleaving(seed: int, deeds: list[tuple[int, str]], deaths: set[int], losses: float) -> None:
    server = ApiServer(seed, virtual_now)
    await server.add("virtualmachines", fresh(make_vm()))
    await server.add("virtualmachineinstancereplicasets", fresh(make_vmirs(3)))
    largest = max(3, *(int(deed[-1]) for _, deed in deeds if deed.startswith("scale")), 0)
    async with running(server, deaths, losses, seed) as crash:
        for pause, deed in deeds:
            for _ in range(pause):
                await asyncio.sleep(0)
            if deed == CRASH:
                crash()
            else:
                await DEEDS[deed](server)
        await server.until(lambda: settled(server), timedelta(minutes=30))
        assert server.most_active["vm-uid"] <= 1
        assert server.most_active["vmirs-uid"] <= largest


@pytest.mark.anyio
async def test_a_virtual_machine_comes_up_in_as_many_writes_as_with_kubevirt() -> None:
    server = ApiServer()
    async with running(server):
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(lambda: (server.find("virtualmachines", "test-vm") or {})["status"].get("ready", False))
    heartbeats = server.writes["PATCH nodes"]
    assert sum(server.writes.values()) - heartbeats <= 18, server.writes


@pytest.mark.anyio
async def test_deleting_a_virtual_machine_leaves_nothing() -> None:
    server = ApiServer()
    async with running(server):
        await server.add("virtualmachines", fresh(make_vm()))
        await server.until(lambda: is_running(server))
        await server.remove("virtualmachines", "test-vm")
        await server.until(lambda: kinds(server) == {"events"})


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), pause=PAUSES, strategy=st.sampled_from(["Always", "RerunOnFailure", "Once"]))
def test_a_vm_deleted_at_any_moment_of_its_start_leaves_nothing(seed: int, pause: int, strategy: str) -> None:
    async def deleted_meanwhile() -> None:
        server = ApiServer(seed, virtual_now)
        async with running(server):
            await server.add("virtualmachines", fresh(make_vm(strategy=strategy)))
            for _ in range(pause):
                await asyncio.sleep(0)
            await server.remove("virtualmachines", "test-vm")
            await server.until(lambda: kinds(server) <= {"events"}, timedelta(minutes=30))

    run_in_virtual_time(deleted_meanwhile())


def test_a_node_that_falls_silent_is_given_up_and_comes_back() -> None:
    run_in_virtual_time(silent_node())


async def silent_node() -> None:
    server = ApiServer(clock=virtual_now)

    def label() -> object:
        return (server.find("nodes", "node-1") or {})["metadata"]["labels"]["kubevirt.io/schedulable"]

    async with running(server):
        await server.fail_node("node-1")
        await server.until(lambda: label() == "false", timedelta(minutes=10))
        assert server.writes["PATCH nodes"] <= 8
        await server.heal_node("node-1")
        await server.until(lambda: label() == "true", timedelta(seconds=5))


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
