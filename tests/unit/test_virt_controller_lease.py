"""Who leads: virtual time, and lines to the kube-apiserver that are cut and mended."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kubevirt.controller.lease import LeadershipLostError, Lease
from tests.unit.simulated_apiserver import ApiServer, Line
from tests.unit.virtual_time import run_in_virtual_time
from virtflow.kube import Object, Response

MINUTE = timedelta(minutes=1)
SECONDS_OF_GRACE = 3.0


class Instance:
    """A process that wants to lead, and when it did. As a supervisor does, it starts again what has ended."""

    def __init__(self, server: ApiServer, identity: str) -> None:
        self.line = Line(server, loses=lambda: self.answers_lost)
        self.answers_lost = False
        self.terms: list[list[float]] = []
        self.losses: list[str] = []
        self._identity = identity
        self._task = asyncio.create_task(self._live())

    @property
    def leads(self) -> bool:
        return bool(self.terms) and len(self.terms[-1]) == 1

    async def _live(self) -> None:
        while True:
            try:
                async with Lease(self.line, "kubevirt", "virt-controller", self._identity).held():
                    self.terms.append([time()])
                    try:
                        await asyncio.Future()
                    finally:
                        self.terms[-1].append(time())
            except* LeadershipLostError as group:
                self.losses += map(str, group.exceptions)

    async def end(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def kill(self) -> None:
        """Without a word to the server."""
        self.line.is_cut = True
        await self.end()


def time() -> float:
    return asyncio.get_running_loop().time()


async def until(holds: Callable[[], bool], limit: timedelta = MINUTE) -> None:
    async with asyncio.timeout(limit.total_seconds()):
        while not holds():  # noqa: ASYNC110 - nobody tells of a moment
            await asyncio.sleep(0.05)


def record(server: ApiServer) -> Object:
    spec: Object = server.objects["leases", "kubevirt", "virt-controller"]["spec"]
    return spec


async def one_of_two(server: ApiServer) -> tuple[Instance, Instance]:
    first = Instance(server, "first")
    await until(lambda: first.leads)
    return first, Instance(server, "second")


async def end_all(*instances: Instance) -> None:
    for instance in instances:
        await instance.end()


def in_virtual_time(test: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        run_in_virtual_time(test())

    return run


@in_virtual_time
async def test_one_leads_and_the_other_waits() -> None:
    server = ApiServer()
    first, second = await one_of_two(server)
    with contextlib.suppress(TimeoutError):
        await until(lambda: second.leads, 5 * MINUTE)
    assert first.leads
    assert second.terms == []
    assert record(server) | {"acquireTime": "", "renewTime": ""} == {
        "holderIdentity": "first",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 0,
        "acquireTime": "",
        "renewTime": "",
    }
    await end_all(first, second)


@in_virtual_time
async def test_who_ends_in_order_is_followed_at_once() -> None:
    server = ApiServer()
    first, second = await one_of_two(server)
    await first.end()
    ended = time()
    await until(lambda: second.leads)
    assert time() - ended < SECONDS_OF_GRACE
    assert record(server)["leaseTransitions"] == 1
    await second.end()
    assert "holderIdentity" not in record(server)


@in_virtual_time
async def test_who_was_killed_is_followed_when_the_lease_has_run_out() -> None:
    server = ApiServer()
    first, second = await one_of_two(server)
    await until(lambda: time() > 5)
    await first.kill()
    killed = time()
    await until(lambda: second.leads)
    assert 13 <= time() - killed < 15 + 2 * SECONDS_OF_GRACE
    await second.end()


@in_virtual_time
async def test_who_was_killed_is_followed_at_once_by_one_of_the_same_identity() -> None:
    server = ApiServer()
    first = Instance(server, "virt-controller-0")
    await until(lambda: first.leads)
    await first.kill()
    killed = time()
    successor = Instance(server, "virt-controller-0")
    await until(lambda: successor.leads)
    assert time() - killed < 1
    assert record(server)["leaseTransitions"] == 0
    await successor.end()


@in_virtual_time
async def test_a_second_process_of_the_same_identity_ends_the_first_one() -> None:
    server = ApiServer()
    elder = Instance(server, "virt-controller-0")
    await until(lambda: elder.leads)
    younger = Instance(server, "virt-controller-0")
    await until(lambda: bool(elder.losses))
    assert elder.terms[0][1] - younger.terms[0][0] < SECONDS_OF_GRACE
    assert "has taken the Lease" in elder.losses[0]
    await end_all(elder, younger)


@in_virtual_time
async def test_who_cannot_renew_ends_before_another_may_lead() -> None:
    server = ApiServer()
    first, second = await one_of_two(server)
    first.line.is_cut = True
    cut = time()
    await until(lambda: second.leads)
    (began, ended), *_ = first.terms
    assert began < cut
    assert 8 <= ended - cut < 10 + SECONDS_OF_GRACE
    assert ended < second.terms[0][0]
    assert "could not renew" in first.losses[0]
    await end_all(first, second)


@in_virtual_time
async def test_a_lost_answer_to_a_renewal_is_no_loss() -> None:
    server = ApiServer()
    first = Instance(server, "first")
    await until(lambda: first.leads)
    for _ in range(10):
        first.answers_lost = not first.answers_lost
        with contextlib.suppress(TimeoutError):
            await until(lambda: not first.leads, timedelta(seconds=4))
    assert first.leads
    assert first.losses == []
    await first.end()


@pytest.mark.parametrize("year", ["1970", "2999"])
def test_nobodys_wall_clock_matters(year: str) -> None:
    async def test() -> None:
        server = ApiServer()
        await server.add("leases", of_stranger(f"{year}-01-01T00:00:00.000000Z"))
        waiting = Instance(server, "waiting")
        await until(lambda: waiting.leads)
        assert 14 <= time() < 15 + SECONDS_OF_GRACE
        await waiting.end()

    run_in_virtual_time(test())


def of_stranger(renewed: str) -> Object:
    spec = {"holderIdentity": "stranger", "leaseDurationSeconds": 15, "renewTime": renewed, "acquireTime": renewed}
    meta = {"name": "virt-controller", "namespace": "kubevirt", "uid": "lease-uid"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


CUTS = st.lists(st.tuples(st.floats(0.1, 20), st.integers(0, 2), st.sampled_from(["cut", "deaf"])), max_size=12)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), cuts=CUTS)
def test_two_never_lead_at_once(seed: int, cuts: list[tuple[float, int, str]]) -> None:
    run_in_virtual_time(partitions(seed, cuts))


async def partitions(seed: int, cuts: list[tuple[float, int, str]]) -> None:
    server = ApiServer(seed)
    instances = [Instance(server, f"virt-controller-{number}") for number in range(3)]
    for pause, number, how in cuts:
        await asyncio.sleep(pause)
        instance = instances[number]
        if how == "cut":
            instance.line.is_cut = not instance.line.is_cut
        else:
            instance.answers_lost = not instance.answers_lost
    for instance in instances:
        instance.line.is_cut = instance.answers_lost = False
    await until(lambda: any(instance.leads for instance in instances))
    await end_all(*instances)
    terms = sorted(term for instance in instances for term in instance.terms)
    for (_, ended), (began, _) in pairwise(terms):
        assert ended <= began


@in_virtual_time
async def test_who_leads_makes_a_deleted_lease_anew() -> None:
    server = ApiServer()
    first = Instance(server, "first")
    await until(lambda: first.leads)
    term = record(server)["acquireTime"]
    await server.force_away("leases", "virt-controller")
    await until(lambda: server.all("leases") != [])
    assert (record(server)["holderIdentity"], record(server)["acquireTime"]) == ("first", term)
    with contextlib.suppress(TimeoutError):
        await until(lambda: not first.leads)
    assert first.leads
    await first.end()


@in_virtual_time
async def test_who_is_forestalled_at_that_leads_no_more() -> None:
    server = ApiServer()
    first = Instance(server, "first")
    await until(lambda: first.leads)
    await server.force_away("leases", "virt-controller")
    await server.add("leases", of_stranger("2026-11-23T06:29:46.000000Z"))
    taken = time()
    await until(lambda: bool(first.losses))
    assert time() - taken < SECONDS_OF_GRACE
    assert "has taken the Lease" in first.losses[0]
    await first.end()


class Forestalling(ApiServer):
    """Somebody else makes the Lease anew between a look that did not find it and the create that follows."""

    armed = False

    async def _write(self, method: str, plural: str, key: tuple[str, str, str], body: Any) -> Response:
        if self.armed and (method, plural) == ("POST", "leases"):
            await self.add("leases", of_stranger("2026-11-23T06:29:46.000000Z"))
        return await super()._write(method, plural, key, body)


@in_virtual_time
async def test_who_is_forestalled_at_the_last_moment_leads_no_more() -> None:
    server = Forestalling()
    first = Instance(server, "first")
    await until(lambda: first.leads)
    server.armed = True
    await server.force_away("leases", "virt-controller")
    deleted = time()
    await until(lambda: bool(first.losses))
    assert time() - deleted < SECONDS_OF_GRACE
    assert "has taken the Lease" in first.losses[0]
    await first.end()
