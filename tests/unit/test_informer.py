import asyncio
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.kube_support import client_of
from virtflow.kube import Informer, KubeClient, KubeError, informer
from virtflow.kube.resources import PODS, Object

pytestmark = pytest.mark.anyio

LIMIT = 20


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost watch is tried again without a pause."""
    monkeypatch.setattr(informer, "FIRST_DELAY", timedelta(0))


class Store:
    """Pods of one namespace as etcd has them: every write has a revision, and old revisions can be compacted."""

    def __init__(self) -> None:
        self.revision = 10
        self.compacted = 0
        self.pods: dict[str, Object] = {}
        self.history: list[tuple[str, Object]] = []
        self.uids = 0

    def put(self, name: str, **more: object) -> Object:
        old = self.pods.get(name)
        if old is None:
            self.uids += 1
        uid = old["metadata"]["uid"] if old else f"uid-{self.uids}"
        return self._write("MODIFIED" if old else "ADDED", {"metadata": {"name": name, "uid": uid}, **more})

    def delete(self, name: str) -> None:
        if name in self.pods:
            self._write("DELETED", self.pods[name])

    def compact(self) -> None:
        self.compacted = self.revision

    def listed(self) -> Object:
        items = [{k: v for k, v in pod.items() if k not in ("apiVersion", "kind")} for pod in self.pods.values()]
        return copy.deepcopy({"metadata": {"resourceVersion": str(self.revision)}, "items": items})

    def after(self, revision: int) -> list[Object]:
        if revision < self.compacted:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            return [{"type": "ERROR", "object": status}]
        return [
            {"type": kind, "object": copy.deepcopy(pod)}
            for kind, pod in self.history
            if int(pod["metadata"]["resourceVersion"]) > revision
        ]

    def _write(self, kind: str, pod: Object) -> Object:
        self.revision += 1
        metadata = {**pod["metadata"], "namespace": "ns", "resourceVersion": str(self.revision)}
        pod = {**pod, "apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        self.history.append((kind, pod))
        if kind == "DELETED":
            del self.pods[metadata["name"]]
        else:
            self.pods[metadata["name"]] = pod
        return copy.deepcopy(pod)


def versions(objects: Any) -> dict[str, tuple[str, str]]:
    return {pod["metadata"]["name"]: (pod["metadata"]["uid"], pod["metadata"]["resourceVersion"]) for pod in objects}


# Any order of what can happen.


class SteppedClient(KubeClient):
    """Lists and watches a store, and gives out an event for one token, an answer for two: events may overtake it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tokens = asyncio.Semaphore(2)
        self.connection = 0

    async def request(self, method: str, path: str, **kwargs: Any) -> Object:
        assert (method, path) == ("GET", "/api/v1/namespaces/ns/pods")
        answer = self.store.listed()
        await self.tokens.acquire()
        await self.tokens.acquire()
        return answer

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        connection, position = self.connection, int(query["resourceVersion"])
        while True:
            await self.tokens.acquire()
            await asyncio.sleep(0)
            if connection != self.connection:
                raise aiohttp.ClientPayloadError("connection lost")
            bookmark: Object = {
                "type": "BOOKMARK",
                "object": {"metadata": {"resourceVersion": str(self.store.revision)}},
            }
            event = [*self.store.after(position), bookmark][0]
            yield event
            position = int(event["object"]["metadata"]["resourceVersion"])

    def disconnect(self) -> None:
        self.connection += 1

    async def step(self, count: int) -> None:
        """Let the informer take so many answers or events."""
        for _ in range(count):
            self.tokens.release()
        async with asyncio.timeout(LIMIT):
            for _ in range(20 + 10 * count):
                await asyncio.sleep(0)
        assert self.tokens.locked()


names = st.sampled_from(["a", "b"])
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "put and observe", "delete"]), names),
        st.tuples(st.just("deliver"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["disconnect", "compact", "catch up"]), st.none()),
        st.tuples(st.just("observe"), st.integers(0, 100)),
    ),
    max_size=30,
)


@settings(max_examples=500)
@given(steps)
@example([("deliver", 2), ("catch up", None), ("deliver", 1), ("delete", "a"), *[("deliver", 1)] * 4])
async def test_any_order_of_events_ends_in_what_the_server_has(steps: list[tuple[str, Any]]) -> None:
    store = Store()
    kube = SteppedClient(store)
    pods = Informer(kube, PODS, namespace="ns")
    ended: set[str] = set()
    caught_up: list[asyncio.Task[None]] = []

    def listener(old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            ended.add(old["metadata"]["uid"])
        assert new is None or new["metadata"]["uid"] not in ended, "it came back from the dead"
        assert (
            old is None
            or new is None
            or int(old["metadata"]["resourceVersion"]) < int(new["metadata"]["resourceVersion"])
        )

    def observe_old(number: int) -> None:
        answers = [pod for kind, pod in store.history if kind != "DELETED"]
        pods.observe(answers[number % len(answers)])

    actions: dict[str, Callable[[Any], object]] = {
        "put": store.put,
        "put and observe": lambda name: pods.observe(store.put(name)),
        "observe": observe_old,
        "delete": store.delete,
        "disconnect": lambda _: kube.disconnect(),
        "compact": lambda _: store.compact(),
        "catch up": lambda _: caught_up.append(asyncio.create_task(pods.catch_up())),
    }
    pods.listen(listener)
    store.put("a")
    async with pods.running():
        for what, argument in steps:
            if what == "deliver":
                await kube.step(argument)
            else:
                actions[what](argument)
        await kube.step(len(store.history) + 2 * len(caught_up) + 20)
        await asyncio.gather(*caught_up)
        assert versions(pods.items()) == versions(store.pods.values())


# Over HTTP.


class Apiserver:
    """Serves a store; `changed` wakes the watches, `drop` breaks them off within a line."""

    def __init__(self) -> None:
        self.store = Store()
        self.changed = asyncio.Condition()
        self.connection = 0
        self.lists = 0
        self.watched_from: list[int] = []
        self.refusals: list[int] = []

    async def wake(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def drop(self) -> None:
        self.connection += 1
        await self.wake()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refusals:
            code = self.refusals.pop(0)
            return web.json_response({"code": code, "reason": "No", "message": "not now"}, status=code)
        if "watch" in request.query:
            return await self._watch(request)
        self.lists += 1
        return web.json_response(self.store.listed())

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        position, connection = int(request.query["resourceVersion"]), self.connection
        self.watched_from.append(position)
        while True:
            for event in self.store.after(position):
                await answer.write(json.dumps(event).encode() + b"\n")
                if event["type"] == "ERROR":
                    return answer
                position = int(event["object"]["metadata"]["resourceVersion"])
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
    server.refusals = [code] * 100
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
            server.refusals = [403] * 100
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
