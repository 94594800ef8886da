"""Replica sets whose selectors overlap: each gets its share, and nobody takes from another.

Whatever people relabel, orphan, pause and scale meanwhile, and whenever the controller is killed.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.objects import controller_of, is_deleting, phase_of
from tests.unit.simulated_apiserver import ApiServer
from tests.unit.simulated_programs import DEATHS, INSTANCES, LOSSES, PAUSES, REPLICA_SETS, fresh, owners, running
from tests.unit.virt_controller_support import make_vmi, make_vmirs
from tests.unit.virtual_time import run_in_virtual_time, virtual_now
from virtflow.kube import Object

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
