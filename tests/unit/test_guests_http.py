import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count

import httpx
import pytest

from clusters.kubevirt.guests.directory import Connection, Directory, Guest, cores_of
from clusters.kubevirt.guests.http import guests_app, guests_server, listening_socket, loop_clock
from clusters.kubevirt.guests.machine import QUEUE_LIMIT
from virtflow.kube import Object

SET_UID = "set-uid"
FRONT_DOOR = "/namespaces/t/virtualmachineinstancereplicasets/web/"
uids = count()


def vmi(name: str, *, phase: str = "Running", ready: bool = True, domain: Object | None = None) -> Object:
    owner = {"kind": "VirtualMachineInstanceReplicaSet", "name": "web", "uid": SET_UID, "controller": True}
    return {
        "metadata": {"namespace": "t", "name": name, "uid": f"uid-{next(uids)}", "ownerReferences": [owner]},
        "spec": {"domain": domain or {"cpu": {"cores": 1}}},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def guest_path(name: str) -> str:
    return f"/namespaces/t/virtualmachineinstances/{name}/"


@contextlib.asynccontextmanager
async def served(directory: Directory, ends: list[tuple[str, int]] | None = None) -> AsyncIterator[str]:
    ends = [] if ends is None else ends

    def replica_set_uid(namespace: str, name: str) -> str | None:
        return SET_UID if (namespace, name) == ("t", "web") else None

    async def end_guest(guest: Guest, exit_code: int) -> bool:
        ends.append((guest.name, exit_code))
        return guest.name != "gone"

    server = guests_server(guests_app(directory, replica_set_uid, end_guest, timedelta(milliseconds=50)))
    listener = listening_socket(0)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.anyio
async def test_a_guest_answers_and_says_what_it_took() -> None:
    directory = Directory(loop_clock)
    directory.follow(None, vmi("one"))
    async with served(directory) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/healthz")).text == "ok"
        guest = directory.get("t", "one")
        assert guest is not None
        guest.machine.admit(loop_clock(), timedelta(seconds=1))
        answer = (await client.get(guest_path("one") + "?cost_ms=30")).json()
        assert (answer["guest"], answer["cost_ms"]) == ("one", 30)
        assert 0 < answer["waited_ms"] <= 1000
        assert (await client.get(guest_path("two"))).status_code == 404
        for cost in ("0", "nan", "x", "1e9", "inf"):
            assert (await client.get(guest_path("one") + f"?cost_ms={cost}")).status_code == 400


@pytest.mark.anyio
async def test_a_full_guest_refuses_and_one_that_ends_drops_its_queue() -> None:
    directory = Directory(loop_clock)
    machine = vmi("one")
    directory.follow(None, machine)
    limits = httpx.Limits(max_connections=None)
    async with served(directory) as url, httpx.AsyncClient(base_url=url, limits=limits) as client:
        path = guest_path("one") + "?cost_ms=10000"
        asked = [asyncio.create_task(client.get(path)) for _ in range(QUEUE_LIMIT + 2)]
        done, held = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().status_code for task in done] == [503]
        assert "too many" in done.pop().result().json()["error"]
        directory.follow(machine, {**machine, "status": {"phase": "Succeeded"}})
        answers = await asyncio.gather(*held)
        assert {answer.status_code for answer in answers} == {503}
        assert all("ended" in answer.json()["error"] for answer in answers)


@pytest.mark.anyio
async def test_the_front_door_balances_connections_not_requests() -> None:
    directory = Directory(loop_clock)
    members = [vmi("a"), vmi("b")]
    async with served(directory) as url, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=url)) for _ in range(4)]

        async def ask(client: httpx.AsyncClient) -> str:
            answer = await client.get(FRONT_DOOR + "?cost_ms=1")
            return str(answer.json().get("guest", answer.status_code))

        assert await ask(clients[0]) == "503"
        for member in members:
            directory.follow(None, member)
        reached = [await ask(client) for client in clients]
        assert sorted(reached) == ["a", "a", "b", "b"]
        directory.follow(None, vmi("c"))
        assert [await ask(client) for client in clients] == reached
        # Its clients move on when a guest is gone.
        directory.follow(members[0], None)
        moved = [await ask(client) for client in clients]
        assert sorted(moved) == ["b", "b", "c", "c"]
        other = "/namespaces/t/virtualmachineinstancereplicasets/other/"
        assert (await clients[0].get(other)).status_code == 404


@pytest.mark.anyio
async def test_a_closed_connection_no_longer_counts() -> None:
    directory = Directory(loop_clock)
    directory.follow(None, vmi("a"))
    guest = directory.get("t", "a")
    assert guest is not None
    async with served(directory) as url, httpx.AsyncClient(base_url=url) as client:
        await client.get(FRONT_DOOR + "?cost_ms=1")
        assert guest.connections == 1
    # Leaving `served` waits for the server's connections to be closed.
    assert guest.connections == 0


@pytest.mark.anyio
async def test_only_ready_guests_take_new_connections() -> None:
    directory = Directory(loop_clock)
    ready, unready, ending = vmi("a"), vmi("b", ready=False), vmi("c")
    ending["metadata"]["deletionTimestamp"] = "2025-11-10T00:00:00Z"
    for member in (ready, unready, ending, vmi("d", phase="Scheduled")):
        directory.follow(None, member)
    picked = {guest.name for _ in range(6) if (guest := directory.route(SET_UID, Connection()))}
    assert picked == {"a"}
    assert directory.get("t", "b") is not None
    assert directory.get("t", "d") is None


@pytest.mark.anyio
async def test_a_pinned_connection_outlives_readiness_but_not_the_guest() -> None:
    directory, connection = Directory(loop_clock), Connection()
    machine = vmi("a")
    directory.follow(None, machine)
    first = directory.route(SET_UID, connection)
    machine["status"]["conditions"][0]["status"] = "False"
    directory.follow(None, machine)
    assert directory.route(SET_UID, connection) is first
    directory.follow(machine, None)
    assert directory.route(SET_UID, connection) is None


@pytest.mark.parametrize(
    ("domain", "cores"),
    [
        ({}, 1),
        ({"cpu": {"model": "host-model"}, "resources": {"requests": {"cpu": "1500m"}}}, 2),
        ({"resources": {"requests": {"cpu": "100m"}}}, 1),
        ({"cpu": {"cores": 2, "sockets": 2, "threads": 2}}, 8),
        ({"cpu": {"sockets": 3}, "resources": {"requests": {"cpu": "1"}}}, 3),
    ],
)
def test_cores_follow_the_vmi(domain: Object, cores: int) -> None:
    assert cores_of({"spec": {"domain": domain}}) == cores


@pytest.mark.anyio
async def test_a_guest_that_is_told_to_end_takes_its_launcher_along_with_an_exit_code() -> None:
    directory = Directory(loop_clock)
    directory.follow(None, vmi("one"))
    directory.follow(None, vmi("gone"))
    ends: list[tuple[str, int]] = []
    async with served(directory, ends) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(guest_path("one") + "poweroff")
        assert (answer.status_code, answer.json()) == (202, {"guest": "one"})
        assert (await client.post(guest_path("one") + "crash")).status_code == 202
        assert (await client.post(guest_path("gone") + "crash")).status_code == 404
        assert (await client.post(guest_path("two") + "poweroff")).status_code == 404
        assert (await client.get(guest_path("one") + "poweroff")).status_code == 405
    assert ends == [("one", 0), ("one", 1), ("gone", 1)]


def with_pause(obj: Object) -> Object:
    paused = {"type": "Paused", "status": "True"}
    return {**obj, "status": {**obj["status"], "conditions": [*obj["status"]["conditions"], paused]}}


@pytest.mark.anyio
async def test_a_paused_guest_stands_still_and_keeps_its_connections() -> None:
    directory, ends = Directory(loop_clock), list[tuple[str, int]]()
    one = vmi("one")
    directory.follow(None, one)
    directory.follow(None, vmi("two"))
    guest = directory.get("t", "one")
    assert guest is not None
    async with served(directory, ends) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get(FRONT_DOOR)).json()["guest"] == "one"
        waiting = asyncio.create_task(client.get(guest_path("one"), params={"cost_ms": "9999"}))
        async with asyncio.timeout(10):
            while guest.machine.used(loop_clock() + timedelta(minutes=1)) < timedelta(seconds=9):  # noqa: ASYNC110
                await asyncio.sleep(0)
        directory.follow(one, with_pause(one))
        answer = await waiting
        assert (answer.status_code, answer.json()["error"]) == (503, "guest one was paused before it answered")
        assert guest.meter.read(loop_clock() + timedelta(seconds=2)) == 0
        for path in (FRONT_DOOR, guest_path("one")):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]) == (503, "guest one is paused")
        assert (await client.post(guest_path("one") + "poweroff")).status_code == 503
        directory.follow(with_pause(one), one)
        assert (await client.get(FRONT_DOOR)).json()["guest"] == "one"
    assert ends == []
