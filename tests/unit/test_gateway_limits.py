"""One caller's flood, and slow ones: what they get, and that nobody else notices."""

import asyncio
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, nullcontext
from datetime import timedelta
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.responses import Response
from starlette.types import Message

from clusters.gateway import requests
from clusters.gateway.answers import InPlace, Paced
from clusters.gateway.limits import STRANGERS, TENANT_REQUESTS, Rooms
from clusters.gateway.manifest import decode
from clusters.gateway.status import StatusError
from clusters.local import pki
from tests.unit.gateway_support import REVIEWS, VM, Setup, running_apiserver
from virtflow.kube import Object

pytestmark = pytest.mark.anyio

PATIENCE = 30
SLOW = 50
GOOD, OTHER = {"Authorization": "Bearer good"}, {"Authorization": "Bearer other"}


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - of another's state
            await asyncio.sleep(0.01)


def is_told_to_come_again(response: httpx.Response) -> bool:
    status: Object = response.json()
    assert (response.status_code, status["reason"]) == (429, "TooManyRequests")
    seconds: int = status["details"]["retryAfterSeconds"]
    return int(response.headers["retry-after"]) == seconds > 0


async def test_a_tenants_flood_takes_no_room_of_anothers(gateway: Setup) -> None:
    gateway.fake.answers_always = REVIEWS
    gateway.fake.open.clear()
    async with asyncio.TaskGroup() as group:
        slow = [group.create_task(gateway.http.get("/virtualmachines", headers=GOOD)) for _ in range(TENANT_REQUESTS)]
        await until(lambda: len(gateway.fake.requests) == TENANT_REQUESTS + len(REVIEWS))
        assert is_told_to_come_again(await gateway.http.get("/virtualmachines", headers=GOOD))
        assert gateway.lines()[-1].items() >= {"verdict": "too many", "tenant": "tenant-a", "code": 429}.items()
        others = group.create_task(gateway.http.get("/virtualmachines", headers=OTHER))
        await until(lambda: len(gateway.fake.requests) == TENANT_REQUESTS + 1 + 2 * len(REVIEWS))
        gateway.fake.open.set()
    assert {task.result().status_code for task in [*slow, others]} == {200}
    assert (await gateway.http.get("/virtualmachines", headers=GOOD)).status_code == 200


async def test_a_flood_of_unknown_tokens_is_not_passed_on_and_keeps_nobody_out_who_is_known(gateway: Setup) -> None:
    assert (await gateway.http.get("/virtualmachines", headers=GOOD)).status_code == 200
    gateway.fake.requests.clear()
    gateway.fake.answers_always = ["/apis/kubevirt.io/v1/namespaces/tenant-a/virtualmachines"]
    gateway.fake.open.clear()
    async with asyncio.TaskGroup() as group:
        strangers = [
            group.create_task(
                gateway.http.get("/virtualmachines", headers={"Authorization": f"Bearer forged-{number}"})
            )
            for number in range(STRANGERS)
        ]
        await until(lambda: len(gateway.fake.requests) == STRANGERS)
        headers = {"Authorization": "Bearer one-more"}
        assert is_told_to_come_again(await gateway.http.get("/virtualmachines", headers=headers))
        assert len(gateway.fake.requests) == STRANGERS
        assert (await gateway.http.get("/virtualmachines", headers=GOOD)).status_code == 200
        gateway.fake.open.set()
    assert {task.result().status_code for task in strangers} == {401}


async def test_the_same_question_of_many_is_asked_once_and_each_names_it_in_the_log(gateway: Setup) -> None:
    responses = await asyncio.gather(*(gateway.http.get("/virtualmachines", headers=GOOD) for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert [request.path for request in gateway.fake.requests[:2]] == [*REVIEWS]
    assert len(gateway.fake.requests) == 20 + len(REVIEWS)
    asked = {request.headers["Audit-ID"] for request in gateway.fake.requests[:2]}
    assert {frozenset((line["token_review"], line["access_review"])) for line in gateway.lines()} == {
        frozenset(asked)
    }


async def questions_of(gateway: Setup, *paths: str) -> list[tuple[str, ...]]:
    """What the kube-apiserver was asked for a few gets."""
    for path in paths:
        await gateway.http.get(f"/virtualmachines{path}", headers=GOOD)
    asked = [body["spec"]["resourceAttributes"] for body in gateway.fake.bodies if "resourceAttributes" in str(body)]
    assert [request.path for request in gateway.fake.requests].count(REVIEWS[0]) == 1
    return [(each["namespace"], each["verb"], each["name"]) for each in asked]


async def test_another_verb_or_namespace_is_another_question(gateway: Setup) -> None:
    asked = await questions_of(gateway, "", "/a", "", "?namespace=tenant-b", "?namespace=tenant-b")
    no = ("tenant-b", "list", "")
    assert asked == [("tenant-a", "list", ""), ("tenant-a", "get", ""), no, no]


async def test_who_may_get_any_machine_is_asked_about_once(gateway: Setup) -> None:
    assert await questions_of(gateway, "/a", "/b", "/a") == [("tenant-a", "get", "")]


async def test_who_may_not_is_asked_about_the_very_one(gateway: Setup) -> None:
    asked = await questions_of(gateway, "/a?namespace=tenant-b", "/b?namespace=tenant-b")
    assert asked == [("tenant-b", "get", name) for name in ("", "a", "", "b")]
    assert [line["code"] for line in gateway.lines()] == [403, 403]
    ids = [request.headers["Audit-ID"] for request in gateway.fake.requests]
    assert len(set(ids)) == len(ids) == 5
    assert [line["access_review"] for line in gateway.lines()] == [ids[2], ids[4]]


async def nothing() -> Message:
    raise AssertionError("nobody asks for more of the request")


async def test_a_long_answer_is_sent_in_pieces() -> None:
    sent: list[Message] = []
    body = bytes(range(256)) * 1000

    async def send(message: Message) -> None:
        sent.append(message)

    await Paced(body)({}, nothing, send)
    pieces = [message["body"] for message in sent[1:]]
    assert b"".join(pieces) == body
    assert len(pieces) > 1
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(pieces) - 1) + [False]


@pytest.mark.parametrize("is_lost", [False, True])
async def test_an_answer_that_is_not_read_keeps_its_place(is_lost: bool) -> None:
    rooms, sending = Rooms(1, "requests"), 0

    async def send(_: Message) -> None:
        nonlocal sending
        sending += 1
        with pytest.raises(StatusError, match="1 requests are under way"), rooms.place("a"):
            pass
        if is_lost:
            raise ConnectionResetError

    place = ExitStack()
    place.enter_context(rooms.place("a"))
    with pytest.raises(ConnectionResetError) if is_lost else nullcontext():
        await InPlace(Response("answer"), place)({"type": "http"}, nothing, send)
    assert sending
    with rooms.place("a"):
        pass


async def test_a_body_that_does_not_come_is_408(gateway: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_LIMIT", timedelta(milliseconds=100))

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(PATIENCE)

    headers = {**GOOD, "Content-Type": "application/json"}
    response = await gateway.http.post("/virtualmachines", content=dripping(), headers=headers)
    assert (response.status_code, response.json()["reason"]) == (408, "RequestTimeout")
    assert gateway.lines()[-1]["verdict"] == "bad request"


class SlowDecode:
    """Goes on when it is told to; what is left of it at the test's end goes on then."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = threading.Event()

    def __call__(self, body: bytes, media_type: str) -> Object:
        self.begun += 1
        assert self.go_on.wait(PATIENCE)
        return decode(body, media_type)


@pytest.fixture
def slow_decode(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDecode]:
    slow = SlowDecode()
    monkeypatch.setattr(requests, "decode", slow)
    yield slow
    slow.go_on.set()


LARGE = {**VM, "spec": {"a": "x" * requests.SMALL_BODY}}


async def test_a_large_body_is_read_beside_the_others_requests_and_one_of_a_tenant_at_a_time(
    gateway: Setup, slow_decode: SlowDecode
) -> None:
    async with asyncio.TaskGroup() as group:
        try:
            own = [group.create_task(gateway.http.post("/virtualmachines", json=LARGE, headers=GOOD)) for _ in "12"]
            await until(lambda: slow_decode.begun == 1)
            others = group.create_task(gateway.http.post("/virtualmachines", json=LARGE, headers=OTHER))
            await until(lambda: slow_decode.begun == 2)
            assert (await gateway.http.get("/virtualmachines", headers=GOOD)).status_code == 200
            assert slow_decode.begun == 2
        finally:
            slow_decode.go_on.set()
    assert {task.result().status_code for task in [*own, others]} == {200}


async def test_a_request_that_is_given_up_keeps_its_turn_while_its_body_is_still_read(
    gateway: Setup, slow_decode: SlowDecode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "BODY_LIMIT", timedelta(milliseconds=100))
    given_up = asyncio.create_task(gateway.http.post("/virtualmachines", json=LARGE, headers=GOOD))
    await until(lambda: slow_decode.begun == 1)
    given_up.cancel()
    assert await asyncio.wait([given_up], timeout=PATIENCE) == ({given_up}, set())
    try:
        assert is_told_to_come_again(await gateway.http.post("/virtualmachines", json=LARGE, headers=GOOD))
        assert slow_decode.begun == 1
    finally:
        slow_decode.go_on.set()
    monkeypatch.undo()
    assert (await gateway.http.post("/virtualmachines", json=LARGE, headers=GOOD)).status_code == 200


async def test_sigterm_loses_no_request_that_was_accepted(tmp_path: Path) -> None:
    """The real process, while fifty requests wait for a slow kube-apiserver."""
    pair = pki.issue(pki.authority(tmp_path, "ca"), tmp_path, "gateway", "gateway", names=("127.0.0.1",))
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    async with AsyncExitStack() as stack:
        fake, _, kubeconfig = await stack.enter_async_context(running_apiserver(tmp_path))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "clusters.gateway", f"--kubeconfig={kubeconfig}", f"--port={port}"),
            *(f"--tls-cert={pair.cert}", f"--tls-key={pair.key}", f"--access-log={tmp_path / 'access.log'}"),
            stderr=asyncio.subprocess.DEVNULL,
        )
        limits = httpx.Limits(max_connections=SLOW + 10)
        url = f"https://127.0.0.1:{port}"
        http = httpx.AsyncClient(base_url=url, verify=trust, timeout=PATIENCE, limits=limits, trust_env=False)
        await stack.enter_async_context(http)
        try:
            await until_served(http)
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
            stack.callback(idle_writer.close)
            fake.answers_always = REVIEWS
            fake.open.clear()
            async with asyncio.TaskGroup() as group:
                slow = [group.create_task(http.get("/virtualmachines", headers=GOOD)) for _ in range(SLOW)]
                await until(lambda: len(fake.requests) == SLOW + len(REVIEWS))
                process.send_signal(signal.SIGTERM)
                assert await asyncio.wait_for(idle_reader.read(), PATIENCE) == b""
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port, ssl=trust)
                fake.open.set()
            assert [task.result().status_code for task in slow] == [200] * SLOW
            assert {task.result().headers["connection"] for task in slow} == {"close"}
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        finally:
            fake.open.set()
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert (tmp_path / "access.log").read_text().count('"verdict": "allowed"') == SLOW


async def until_served(http: httpx.AsyncClient) -> None:
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                if (await http.get("/healthz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.05)
