"""Whatever happens, in whatever order, the copy ends up the same as the server."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.pod_store import Store
from virtflow.kube import Informer, KubeClient, informer
from virtflow.kube.resources import PODS, Object

pytestmark = pytest.mark.anyio

LIMIT = 20


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost watch is tried again without a pause."""
    monkeypatch.setattr(informer, "FIRST_DELAY", timedelta(0))


def versions(objects: Any) -> dict[str, tuple[str, str]]:
    return {pod["metadata"]["name"]: (pod["metadata"]["uid"], pod["metadata"]["resourceVersion"]) for pod in objects}


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
