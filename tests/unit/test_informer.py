import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from tests.unit.kube_support import client_of
from tests.unit.pod_store import Store
from virtflow.kube import Informer, KubeClient, KubeError, informer
from virtflow.kube.resources import PODS, Object

pytestmark = pytest.mark.anyio

LIMIT = 20
NESTED = "[" * 2000 + "]" * 2000
"""JSON, but deeper than it is read."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost watch is tried again without a pause."""
    monkeypatch.setattr(informer, "FIRST_DELAY", timedelta(0))


class Apiserver:
    """Serves a store; `changed` wakes the watches, `drop` breaks them off within a line."""

    def __init__(self) -> None:
        self.store = Store()
        self.changed = asyncio.Condition()
        self.connection = 0
        self.lists = 0
        self.watched_from: list[int] = []
        self.refusals: list[int] = []
        self.always_refuses = 0
        self.unreadable_lists = 0
        self.unreadable: set[int] = set()
        """Versions whose events nobody can read."""

    async def wake(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def drop(self) -> None:
        self.connection += 1
        await self.wake()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        code = self.refusals.pop(0) if self.refusals else self.always_refuses
        if code:
            return web.json_response({"code": code, "reason": "No", "message": "not now"}, status=code)
        if "watch" in request.query:
            return await self._watch(request)
        self.lists += 1
        if self.lists <= self.unreadable_lists:
            return web.Response(text=NESTED, content_type="application/json")
        return web.json_response(self.store.listed())

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        position, connection = int(request.query["resourceVersion"]), self.connection
        self.watched_from.append(position)
        while True:
            for event in self.store.after(position):
                text = json.dumps(event)
                if event["type"] == "ERROR":
                    await answer.write(text.encode() + b"\n")
                    return answer
                position = int(event["object"]["metadata"]["resourceVersion"])
                await answer.write((NESTED if position in self.unreadable else text).encode() + b"\n")
            async with self.changed:
                await self.changed.wait()
            if connection != self.connection:
                await answer.write(b'{"type": "ADDED", "obj')
                return answer


@pytest.fixture
def server() -> Apiserver:
    return Apiserver()


@pytest.fixture
async def kube(server: Apiserver, tmp_path: Path) -> AsyncIterator[KubeClient]:
    async with client_of(server.handle, tmp_path) as client:
        yield client
        await server.drop()


def exists(pod: Object | None) -> bool:
    return pod is not None


def ended(pod: Object | None) -> bool:
    return pod is None


async def test_the_block_is_entered_with_the_first_list(kube: KubeClient, server: Apiserver) -> None:
    server.store.put("a")
    pods = Informer(kube, PODS, namespace="ns")
    async with pods.running():
        found = pods.get("ns", "a")
        assert found is not None
        assert (found["apiVersion"], found["kind"]) == ("v1", "Pod")
        assert pods.get("ns", "b") is None
        assert pods.get("other", "a") is None


async def test_wait_for_ends_at_the_event_that_fulfils_it(kube: KubeClient, server: Apiserver) -> None:
    pods = Informer(kube, PODS, namespace="ns")
    async with pods.running(), asyncio.timeout(LIMIT):
        waits = asyncio.create_task(pods.wait_for("ns", "a", lambda pod: bool(pod and pod.get("phase") == "Running")))
        server.store.put("b", phase="Running")
        server.store.put("a", phase="Pending")
        await server.wake()
        await pods.wait_for("ns", "a", exists)
        assert not waits.done()
        server.store.put("a", phase="Running")
        await server.wake()
        found = await waits
        assert found is not None
        assert found["phase"] == "Running"
        server.store.delete("a")
        await server.wake()
        assert await pods.wait_for("ns", "a", ended) is None
    assert server.lists == 1


async def test_wait_for_gives_up_when_it_is_told_to_and_leaves_nothing(kube: KubeClient) -> None:
    pods = Informer(kube, PODS, namespace="ns")
    async with pods.running():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pods.wait_for("ns", "a", exists)
        assert pods.get("ns", "a") is None


async def test_a_lost_connection_goes_on_where_it_was(kube: KubeClient, server: Apiserver) -> None:
    pods = Informer(kube, PODS, namespace="ns")
    async with pods.running(), asyncio.timeout(LIMIT):
        created = server.store.put("a")
        await server.wake()
        await pods.wait_for("ns", "a", exists)
        server.store.delete("a")
        server.store.put("b")
        await server.drop()
        await pods.wait_for("ns", "b", exists)
        assert pods.get("ns", "a") is None
    assert server.lists == 1
    assert server.watched_from == [10, int(created["metadata"]["resourceVersion"])]


async def test_a_version_that_is_too_old_means_a_new_list(kube: KubeClient, server: Apiserver) -> None:
    server.store.put("a")
    pods = Informer(kube, PODS, namespace="ns")
    seen: list[list[str]] = []
    pods.listen(lambda *change: seen.append([pod["metadata"]["uid"] if pod else "" for pod in change]))
    async with pods.running(), asyncio.timeout(LIMIT):
        server.store.delete("a")
        server.store.put("b")
        server.store.compact()
        await server.drop()
        await pods.wait_for("ns", "b", exists)
        await pods.wait_for("ns", "a", ended)
    assert server.lists == 2
    assert seen == [["", "uid-1"], ["", "uid-2"], ["uid-1", ""]]


async def test_an_event_that_cannot_be_read_means_a_new_list(
    kube: KubeClient, server: Apiserver, caplog: pytest.LogCaptureFixture
) -> None:
    pods = Informer(kube, PODS, namespace="ns")
    async with pods.running(), asyncio.timeout(LIMIT):
        server.unreadable.add(int(server.store.put("a")["metadata"]["resourceVersion"]))
        await server.wake()
        await pods.wait_for("ns", "a", exists)
    assert server.lists == 2
    assert server.watched_from == [10, 11][: len(server.watched_from)]
    [told] = caplog.messages
    assert "watch of pods lost (UnreadableAnswer: An event of /api/v1/namespaces/ns/pods cannot be read" in told


async def test_a_list_that_cannot_be_read_is_asked_for_again(
    kube: KubeClient, server: Apiserver, caplog: pytest.LogCaptureFixture
) -> None:
    server.unreadable_lists = 3
    server.store.put("a")
    pods = Informer(kube, PODS, namespace="ns")
    async with asyncio.timeout(LIMIT), pods.running():
        assert pods.get("ns", "a") is not None
    assert server.lists == 4
    assert ["UnreadableAnswer" in told for told in caplog.messages] == [True] * 3


async def test_an_error_that_may_pass_is_tried_again(kube: KubeClient, server: Apiserver) -> None:
    server.refusals = [500, 503, 429]
    server.store.put("a")
    pods = Informer(kube, PODS, namespace="ns")
    async with asyncio.timeout(LIMIT), pods.running():
        assert pods.get("ns", "a") is not None


@pytest.mark.parametrize("code", [401, 403])
async def test_who_may_not_list_for_long_is_told_so(
    kube: KubeClient, server: Apiserver, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer, "REFUSED_FOR", timedelta(milliseconds=50))
    server.always_refuses = code
    with pytest.raises(KubeError, match=f"{code} No: not now"):
        async with asyncio.timeout(LIMIT), Informer(kube, PODS, namespace="ns").running():
            pytest.fail("the block was entered")


@pytest.mark.parametrize("code", [401, 403])
async def test_a_server_that_has_just_started_may_refuse_for_a_moment(
    kube: KubeClient, server: Apiserver, code: int
) -> None:
    server.refusals = [code, code]
    server.store.put("a")
    pods = Informer(kube, PODS, namespace="ns")
    async with asyncio.timeout(LIMIT), pods.running():
        assert pods.get("ns", "a") is not None
        server.refusals = [code]
        await server.drop()
        server.store.put("b")
        await pods.wait_for("ns", "b", exists)


async def test_who_may_no_longer_watch_does_not_go_on_with_an_old_copy(
    kube: KubeClient, server: Apiserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer, "REFUSED_FOR", timedelta(milliseconds=50))

    async def watch_until_refused() -> None:
        async with asyncio.timeout(LIMIT), Informer(kube, PODS, namespace="ns").running():
            server.always_refuses = 403
            await server.drop()
            await asyncio.Event().wait()

    with pytest.raises(KubeError, match="403 No: not now"):
        await watch_until_refused()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_in_the_block_is_the_block_s_own(kube: KubeClient) -> None:
    with pytest.raises(ZeroDivisionError):
        async with Informer(kube, PODS, namespace="ns").running():
            raise ZeroDivisionError
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "informer pods"]


async def test_own_writes_are_seen_at_once_and_not_undone_by_what_is_older(
    kube: KubeClient, server: Apiserver
) -> None:
    pods = Informer(kube, PODS, namespace="ns")
    seen: list[int] = []
    pods.listen(lambda _, new: seen.append(int(new["metadata"]["resourceVersion"]) if new else 0))
    async with pods.running(), asyncio.timeout(LIMIT):
        old, new = server.store.put("a"), server.store.put("a")
        pods.observe(new)
        pods.observe(old)
        assert pods.get("ns", "a") == new
        server.store.put("b")
        await server.wake()
        await pods.wait_for("ns", "b", exists)
        assert seen == [12, 13]


async def test_an_object_that_comes_back_into_the_selection_is_taken_in_again(
    kube: KubeClient, server: Apiserver
) -> None:
    # To a watch with a selector, a label that is taken away and put back is an end and a beginning of one uid.
    pods = Informer(kube, PODS, namespace="ns", selector="app=a")
    async with pods.running(), asyncio.timeout(LIMIT):
        first = server.store.put("a")
        await server.wake()
        await pods.wait_for("ns", "a", exists)
        server.store.history.append(
            ("DELETED", {**first, "metadata": {**first["metadata"], "resourceVersion": "12"}})
        )
        await server.wake()
        await pods.wait_for("ns", "a", ended)
        again = {**first, "metadata": {**first["metadata"], "resourceVersion": "13"}}
        server.store.history.append(("ADDED", again))
        await server.wake()
        assert await pods.wait_for("ns", "a", exists) == again
