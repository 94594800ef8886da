"""The whole of virt-controller and virt-handler against a kube-apiserver that answers when it likes.

Whatever order answers and events come in, whichever answers get lost, whatever people do meanwhile, and between
whichever two requests the controller is killed: in the end there is what was asked for, and at no time was there
too much.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.controller.lease import LeadershipLostError, Lease
from clusters.kubevirt.controller.objects import condition, controller_of, is_deleting, is_final, phase_of
from clusters.kubevirt.controller.process import Controller
from clusters.kubevirt.handler import Handler
from tests.unit.virt_controller_support import (
    NAMESPACE,
    ApiServer,
    Line,
    make_vm,
    make_vmi,
    make_vmirs,
    run_in_virtual_time,
    virtual_now,
)
from virtflow.kube import Object

INSTANCES, REPLICA_SETS = "virtualmachineinstances", "virtualmachineinstancereplicasets"
Deed = Callable[[ApiServer], Awaitable[None]]
PAUSES = st.integers(min_value=0, max_value=400)


class Programs:
    """virt-controller, virt-handler and the nodes at work on a server."""

    def __init__(self, server: ApiServer, deaths: set[int], losses: float, seed: int) -> None:
        self._server = server
        self._deaths = deaths
        self._losses = losses
        self._random = random.Random(seed)
        self._passed = 0
        self.others = [asyncio.create_task(Handler(server).run()), asyncio.create_task(server.run_nodes())]
        self.start()

    def start(self) -> None:
        self._line = Line(self._server, self._on_pass, lambda: self._random.random() < self._losses)
        self.controller = asyncio.create_task(self._keep(self._line))

    async def _keep(self, line: Line) -> None:
        """As a supervisor does: enough lost answers lose the Lease, too."""
        while True:
            try:
                await Controller(line).run(Lease(line, "kubevirt", "virt-controller", "virt-controller-0"))
            except* LeadershipLostError:
                pass

    def crash(self) -> None:
        """As SIGKILL does: what is on its way to the server is dropped, and nothing follows."""
        self._line.is_cut = True
        self.controller.cancel()
        self.others.append(self.controller)
        self.start()

    def _on_pass(self) -> None:
        self._passed += 1
        if self._passed in self._deaths:
            self.crash()


@asynccontextmanager
async def running(
    server: ApiServer, deaths: set[int] | None = None, losses: float = 0, seed: int = 0
) -> AsyncIterator[Callable[[], None]]:
    """Everything at work within the block; what is yielded kills the controller and starts another one.

    `deaths` are moments to kill it at: how many requests of all its lives have been sent or answered. `losses` is
    which part of the answers to its writes gets lost.
    """
    programs = Programs(server, deaths or set(), losses, seed)
    try:
        yield programs.crash
        tasks = [*programs.others, programs.controller]
        assert [task for task in tasks if task.done() and not task.cancelled()] == []
    finally:
        tasks = [*programs.others, programs.controller]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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


def owners(objects: list[Object]) -> list[str]:
    return sorted((controller_of(obj) or {})["uid"] for obj in objects)


def kinds(server: ApiServer) -> set[str]:
    return {plural for plural, namespace, _ in server.objects if namespace == NAMESPACE}


def names(objects: list[Object]) -> list[str]:
    return [obj["metadata"]["name"] for obj in objects]


DEATHS = st.sets(st.integers(1, 300), max_size=6)
LOSSES = st.sampled_from([0, 0.02, 0.2])


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


SETS = {"one": "vmirs-uid", "two": "other-uid"}
CLAIMS = st.sampled_from(
    [
        *(
            f"{deed} {name}"
            for name in SETS
            for deed in ("scale-0", "scale-1", "scale-4", "pause", "resume", "orphan")
        ),
        *("leave", "come", "taken", "newcomer", "delete instance", "crash"),
    ]
)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32), deeds=st.lists(st.tuples(PAUSES, CLAIMS), max_size=8), deaths=DEATHS, losses=LOSSES
)
def test_sets_share_what_both_select_without_a_fight(
    seed: int, deeds: list[tuple[int, str]], deaths: set[int], losses: float
) -> None:
    run_in_virtual_time(claims(seed, deeds, deaths, losses))


async def claims(seed: int, deeds: list[tuple[int, str]], deaths: set[int], losses: float) -> None:
    server = ApiServer(seed, virtual_now)
    for name, uid in SETS.items():
        await server.add(REPLICA_SETS, fresh(make_vmirs(2, name, uid)))
    async with running(server, deaths, losses, seed) as crash:
        for number, (pause, deed) in enumerate(deeds):
            for _ in range(pause):
                await asyncio.sleep(0)
            await claim(server, deed, number, crash)
        await server.until(lambda: shared(server), timedelta(minutes=30))
        # Two that fight never come to rest. What else is written last is events.
        await asyncio.sleep(60)
        written = server.writes.total()
        await asyncio.sleep(60)
        assert shared(server)
        assert server.writes.total() == written


async def claim(server: ApiServer, deed: str, number: int, crash: Callable[[], None]) -> None:
    instances = server.all(INSTANCES)
    match deed.split():
        case [scale, name] if scale.startswith("scale-"):
            await server.edit(REPLICA_SETS, name, {"replicas": int(scale[-1])})
        case ["pause" | "resume" as how, name]:
            await server.edit(REPLICA_SETS, name, {"paused": how == "pause"})
        case ["orphan", name]:
            await server.remove_only(REPLICA_SETS, name)
            await server.add(REPLICA_SETS, fresh(make_vmirs(1, name, f"{name}-{number}")))
        case ["leave" | "come" | "taken" as how]:
            for vmi in instances[-1:] if how == "come" else instances[:1]:
                labels = {"app": "test" if how == "come" else "other"}
                await server.relabel(INSTANCES, vmi["metadata"]["name"], labels, keep_owners=how != "taken")
        case ["newcomer"]:
            vmi = make_vmi()
            vmi["metadata"] |= {"name": f"newcomer-{number}", "uid": f"newcomer-{number}"}
            await server.add(INSTANCES, vmi)
        case ["delete", "instance"]:
            for vmi in instances[-1:]:
                await server.remove(INSTANCES, vmi["metadata"]["name"])
        case _:
            crash()


def shared(server: ApiServer) -> bool:
    """Whether each set has just as many as it wants, and no one else's, and nobody whom both select is left alone."""
    instances = server.all(INSTANCES)
    selected = [vmi for vmi in instances if vmi["metadata"]["labels"]["app"] == "test"]
    return (
        all(phase_of(vmi) == "Running" and not is_deleting(vmi) for vmi in instances)
        and all((controller_of(vmi) is None) == (vmi not in selected) for vmi in instances)
        and all(has_its_share(each, selected) for each in server.all(REPLICA_SETS))
        and owners(server.all("pods")) == sorted(vmi["metadata"]["uid"] for vmi in instances)
    )


def has_its_share(vmirs: Object, selected: list[Object]) -> bool:
    own = [vmi for vmi in selected if (controller_of(vmi) or {}).get("uid") == vmirs["metadata"]["uid"]]
    status = vmirs.get("status", {})
    is_paused = vmirs["spec"].get("paused", False)
    return (
        (is_paused or len(own) == vmirs["spec"]["replicas"])
        and status.get("replicas", 0) == status.get("readyReplicas", 0) == len(own)
        and [each["type"] for each in status.get("conditions", [])] == ["ReplicaPaused"] * is_paused
    )


class SetsUnseen(ApiServer):
    """Tells nobody any more, once it is asked to, of what becomes of replica sets."""

    hides = False

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        async for event in super().stream(path, query, timeout):
            if self.hides and REPLICA_SETS in path:
                await asyncio.Future()
            yield event


def test_a_set_that_goes_does_not_take_back_whom_it_lets_go_though_the_cache_has_not_heard_of_it() -> None:
    async def test() -> None:
        server = SetsUnseen(clock=virtual_now)
        async with running(server):
            await server.add(REPLICA_SETS, fresh(make_vmirs(2, "one")))
            await server.until(lambda: has_its_share(server.find(REPLICA_SETS, "one") or {}, server.all(INSTANCES)))
            server.hides = True
            await server.let_go(REPLICA_SETS, "one")
            await asyncio.sleep(60)
            assert [controller_of(vmi) for vmi in server.all(INSTANCES)] == [None, None]

    run_in_virtual_time(test())


def fresh(obj: Object) -> Object:
    """As a user makes it: without what the controller adds."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in ("annotations", "finalizers")}
    return {**obj, "metadata": meta}


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
async def test_a_set_over_quota_says_so_until_there_is_room() -> None:
    server = ApiServer()
    server.instance_quota = 2

    def told_of(vmirs: Object) -> list[tuple[str, str, str]]:
        conditions = vmirs.get("status", {}).get("conditions", [])
        return [(each["type"], each["reason"], each["message"].split(": ")[-1]) for each in conditions]

    async with running(server):
        await server.add(REPLICA_SETS, fresh(make_vmirs(3, "one")))
        await server.until(lambda: told_of(server.find(REPLICA_SETS, "one") or {}) != [])
        told = told_of(server.find(REPLICA_SETS, "one") or {})
        assert told == [("ReplicaFailure", "FailedCreate", "tenant-quota")]
        server.instance_quota = None
        await server.until(lambda: has_its_share(server.find(REPLICA_SETS, "one") or {}, server.all(INSTANCES)))
        assert server.most_active["vmirs-uid"] == 3


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
