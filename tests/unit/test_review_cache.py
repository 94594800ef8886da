"""In whatever order requests, expiries, revocations and failures come: no answer is used that is too old."""

import asyncio
import gc
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.gateway.cache import LIFETIME, Review, ReviewCache

pytestmark = pytest.mark.anyio

SECONDS = LIFETIME.total_seconds()
KEYS = st.sampled_from([b"a", b"a", b"a", b"b"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), KEYS),
        st.tuples(st.just("request, answered at once"), KEYS),
        st.tuples(st.just("time"), st.sampled_from([0.5, 4.0, 9.5, 10.0, 11.0])),
        st.tuples(st.just("clock set"), st.sampled_from([-50.0, 50.0])),
        st.tuples(st.just("expires in"), st.sampled_from([0.0, 3.0, 8.0, 100.0])),
        st.tuples(st.just("revoke or grant"), KEYS),
        st.tuples(st.just("answer"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
    ),
    min_size=10,
    max_size=40,
)


class RefusedError(Exception):
    """What the kube-apiserver says no to, or gives no answer to."""


@dataclass(eq=False)
class Request:
    """One caller, its own question to the kube-apiserver if it had to ask, and what it was told."""

    key: bytes
    answered: asyncio.Future[Review[int]] | None = None
    asked: float = 0
    failed: bool = False
    task: "asyncio.Task[Review[int]] | None" = None
    done_at: tuple[float, float] = (0, 0)


@dataclass
class World:
    """A kube-apiserver that answers when the test wants it to, two clocks, and the cache between."""

    monotonic: float = 1000
    wall: float = 5000
    lifetime_of_tokens: float = 100
    revoked: set[bytes] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    asked: dict[int, float] = field(default_factory=dict)
    """Of each answer, when its question was sent."""

    def __post_init__(self) -> None:
        self.cache = ReviewCache[int](size=100, monotonic=lambda: self.monotonic, wall=lambda: self.wall)

    async def request(self, key: bytes) -> Request:
        request = Request(key)

        async def ask() -> Review[int]:
            request.asked = self.monotonic
            request.answered = asyncio.get_running_loop().create_future()
            return await request.answered

        async def run() -> Review[int]:
            try:
                return await self.cache.get(key, ask)
            finally:
                request.done_at = self.monotonic, self.wall

        request.task = asyncio.create_task(run())
        self.requests.append(request)
        await self.settle()
        return request

    async def settle(self) -> None:
        for _ in range(3 * len(self.requests) + 3):
            await asyncio.sleep(0)

    async def answer(self, request: Request) -> None:
        """As the kube-apiserver would at this moment."""
        assert request.answered is not None
        if request.key in self.revoked:
            await self.fail(request)
            return
        number = len(self.asked)
        self.asked[number] = request.asked
        request.answered.set_result(Review(number, f"id-{number}", self.wall + self.lifetime_of_tokens))
        await self.settle()

    async def fail(self, request: Request) -> None:
        assert request.answered is not None
        request.failed = True
        request.answered.set_exception(RefusedError())
        await self.settle()

    def waiting(self) -> list[Request]:
        """Those whose own question is under way."""
        return [each for each in self.requests if each.answered is not None and not each.answered.done()]

    def check(self) -> None:
        for key in (b"a", b"b"):
            assert len([each for each in self.waiting() if each.key == key]) <= 1, "two ask the same at once"
        for request in self.requests:
            assert request.task is not None
            if not request.task.done() or request.task.cancelled():
                continue
            if error := request.task.exception():
                assert isinstance(error, RefusedError)
                assert request.failed, "somebody else's failure"
                continue
            review = request.task.result()
            if request.answered is not None:
                continue  # it asked itself
            at, wall = request.done_at
            assert at - self.asked[review.answer] < SECONDS
            assert wall < review.expires


async def finish(world: World) -> None:
    while waiting := world.waiting():
        await world.answer(waiting[0])
    world.check()
    tasks = [request.task for request in world.requests if request.task]
    assert all(task.done() for task in tasks), "somebody waits for ever"
    await asyncio.gather(*tasks, return_exceptions=True)


async def take(world: World, what: str, value: object) -> None:
    match what, value:
        case "request", bytes(key):
            await world.request(key)
        case "request, answered at once", bytes(key):
            if (request := await world.request(key)) in world.waiting():
                await world.answer(request)
        case "time", float(seconds):
            world.monotonic += seconds
            world.wall += seconds
        case "clock set", float(seconds):
            world.wall += seconds
        case "expires in", float(seconds):
            world.lifetime_of_tokens = seconds
        case "revoke or grant", bytes(key):
            world.revoked ^= {key}
        case _, int(number):
            await take_one(world, what, number)


async def take_one(world: World, what: str, number: int) -> None:
    """Something that happens to one of those that are there."""
    if what == "cancel" and world.requests:
        task = world.requests[number % len(world.requests)].task
        assert task is not None
        task.cancel()
        await world.settle()
    elif waiting := world.waiting():
        chosen = waiting[number % len(waiting)]
        await (world.answer(chosen) if what == "answer" else world.fail(chosen))


@settings(max_examples=300)
@given(STEPS)
async def test_no_answer_is_older_than_ten_seconds_nor_past_the_tokens_end(steps: list[tuple[str, object]]) -> None:
    world = World()
    for what, value in steps:
        await take(world, what, value)
        world.check()
    await finish(world)


async def test_those_who_ask_at_once_share_one_question_and_its_audit_id() -> None:
    world = World()
    requests = [await world.request(b"a") for _ in range(50)]
    assert len(world.waiting()) == 1
    await world.answer(requests[0])
    await finish(world)
    assert {request.task.result().audit_id for request in requests if request.task} == {"id-0"}
    assert [request for request in requests if request.answered] == requests[:1]


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
async def test_who_asked_for_all_may_fail_and_the_next_one_asks(how: str) -> None:
    world = World()
    first, second, third = [await world.request(b"a") for _ in range(3)]
    if how == "fails":
        await world.fail(first)
    else:
        assert first.task is not None
        first.task.cancel()
        await world.settle()
    assert second.answered is not None
    await world.answer(second)
    await finish(world)
    assert second.task is not None
    assert third.task is not None
    assert second.task.result() == third.task.result()
    assert third.answered is None


async def test_a_refusal_is_asked_anew() -> None:
    world = World(revoked={b"a"})
    await world.answer(await world.request(b"a"))
    world.revoked.clear()
    again = await world.request(b"a")
    assert again.answered is not None
    await world.answer(again)
    await finish(world)
    assert world.cache.knows(b"a")


async def test_it_keeps_what_was_used_last_and_no_more_than_its_size() -> None:
    cache = ReviewCache[int](size=2)
    asked: list[bytes] = []

    async def get(key: bytes) -> None:
        async def ask() -> Review[int]:
            asked.append(key)
            return Review(1, "id")

        await cache.get(key, ask)

    for key in (b"a", b"b", b"a", b"c", b"a", b"b"):
        await get(key)
    assert asked == [b"a", b"b", b"c", b"b"]
    assert [cache.knows(key) for key in (b"a", b"b", b"c")] == [True, True, False]
    gc.collect()
    assert not cache._asking  # noqa: SLF001 - a lock for each key there ever was would be a leak
