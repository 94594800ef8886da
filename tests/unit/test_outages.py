"""Programs that are taken down and brought back: what is done in which order, and whatever becomes of the worker."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from aiohttp import web
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.outages import Outages
from clusters.endpoints import ClusterError
from clusters.faults import FOLLOWERS, CannotFailError, Programs, check_node
from clusters.supervisor import Program, Supervisor
from tests.unit.kube_support import client_of
from virtflow.errors import InfrastructureError
from virtflow.verdicts import verdict_on
from workflows.fault_models import Outage

pytestmark = pytest.mark.anyio

NAME = "kube-apiserver"
MINUTE = timedelta(minutes=1)
SOON, LONG = Outage(NAME, timedelta(milliseconds=50)), Outage(NAME, 5 * MINUTE)


class Noted(Programs):
    """Notes what it is told, and does nothing."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.keeps = True
        self.waited = False

    def kill(self, program: str) -> None:
        self._note(f"kill {program}")

    def start(self, program: str) -> None:
        self._note(f"start {program}")

    def wake_followers(self, program: str) -> None:
        self._note(f"wake followers of {program}")
        self.waited = False

    def has_waited_for(self, _program: str) -> bool:
        return self.waited

    def _note(self, act: str) -> None:
        if not self.keeps:
            raise CannotFailError("not ours")
        self.told.append(act)

    def is_down(self, _program: str) -> bool:
        return bool(self.told) and self.told[-1].startswith("kill")

    def runs(self, program: str) -> bool:
        return not self.is_down(program)


@pytest.fixture
def programs() -> Noted:
    return Noted()


@pytest.fixture
async def outages(programs: Noted, tmp_path: Path) -> AsyncIterator[Outages]:
    """Beside a kube-apiserver that is ready at the second question."""
    codes = iter([503])

    async def readyz(request: web.Request) -> web.StreamResponse:
        assert request.path == "/readyz"
        return web.Response(status=next(codes, 200))

    async with client_of(readyz, tmp_path) as kube:
        yield Outages(kube, programs)


def attempt(number: int, began: timedelta) -> ActivityEnvironment:
    """A try of an activity that was first asked for so long ago."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=number, scheduled_time=datetime.now(UTC) - began)
    return environment


async def test_it_is_away_for_its_time_and_back_when_the_apiserver_is_ready(
    outages: Outages, programs: Noted
) -> None:
    ended = await attempt(1, timedelta()).run(outages.hold_down, SOON)
    assert programs.told == [f"kill {NAME}", f"start {NAME}", f"wake followers of {NAME}"]
    assert ended.back_at - ended.gone_at >= SOON.lasts


async def test_a_retry_holds_on_for_what_is_left(
    outages: Outages, programs: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again, if somebody has started it meanwhile."""
    held, sleep = [], asyncio.sleep

    async def sleep_minutes_at_once(seconds: float) -> None:
        if seconds > MINUTE.total_seconds():
            held.append(timedelta(seconds=seconds))
        else:
            await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep_minutes_at_once)
    await attempt(2, MINUTE).run(outages.hold_down, LONG)
    assert programs.told == [f"kill {NAME}", f"start {NAME}", f"wake followers of {NAME}"]
    [left] = held
    assert left <= LONG.lasts - MINUTE


async def test_a_retry_that_comes_too_late_only_brings_it_back(outages: Outages, programs: Noted) -> None:
    await attempt(2, timedelta(hours=1)).run(outages.hold_down, LONG)
    assert programs.told == [f"start {NAME}", f"wake followers of {NAME}"]


@pytest.mark.parametrize("act", ["hold_down", "bring_back"])
async def test_a_program_that_does_not_come_back_is_infrastructure(
    outages: Outages, programs: Noted, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    monkeypatch.setattr("activities.outages.BACK_LIMIT", timedelta(milliseconds=50))
    monkeypatch.setattr(programs, "runs", lambda _program: False)
    with pytest.raises(ApplicationError, match="it does not answer") as failed:
        await attempt(1, timedelta()).run(getattr(outages, act), SOON)
    assert failed.value.non_retryable
    assert isinstance(verdict_on(failed.value), InfrastructureError)


async def test_cancelled_it_is_brought_back_at_once(outages: Outages, programs: Noted) -> None:
    environment = attempt(1, timedelta())
    holding = asyncio.create_task(environment.run(outages.hold_down, LONG))
    with anyio.fail_after(30):
        await ActivityEnvironment().run(outages.await_down, LONG)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert programs.told == [f"kill {NAME}", f"start {NAME}"]


async def test_cancelled_in_the_midst_of_the_kill_it_is_brought_back_after_it(
    outages: Outages, programs: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, kill = threading.Event(), threading.Event(), programs.kill

    def kill_slowly(program: str) -> None:
        begun.set()
        assert may_end.wait(60)
        kill(program)

    monkeypatch.setattr(programs, "kill", kill_slowly)
    environment = attempt(1, timedelta())
    holding = asyncio.create_task(environment.run(outages.hold_down, LONG))
    assert await asyncio.to_thread(begun.wait, 60)
    environment.cancel()
    # As much as the loop would need to do too early what comes after it.
    for _ in range(10):
        await asyncio.sleep(0)
    assert programs.told == []
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert programs.told == [f"kill {NAME}", f"start {NAME}"]


async def test_what_nobody_keeps_is_refused_for_good(outages: Outages, programs: Noted) -> None:
    programs.keeps = False
    with pytest.raises(ApplicationError, match="not ours") as refused:
        await attempt(1, timedelta()).run(outages.hold_down, LONG)
    assert refused.value.non_retryable


@pytest.mark.parametrize("keeps", [True, False])
async def test_bringing_back_is_harmless(outages: Outages, programs: Noted, keeps: bool) -> None:
    programs.keeps = keeps
    await ActivityEnvironment().run(outages.bring_back, LONG)
    await ActivityEnvironment().run(outages.bring_back, LONG)
    assert programs.told == (2 * [f"start {NAME}"] if keeps else [])


async def test_an_outage_that_was_cut_short_has_its_followers_woken_once(outages: Outages, programs: Noted) -> None:
    programs.waited = True
    await ActivityEnvironment().run(outages.bring_back, LONG)
    await ActivityEnvironment().run(outages.bring_back, LONG)
    assert programs.told == [f"start {NAME}", f"wake followers of {NAME}", f"start {NAME}"]


async def test_who_began_before_a_program_has_waited_for_it(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FOLLOWERS, "mine", ("follower",))
    supervisor = Supervisor(folder := tmp_path_factory.mktemp("s"))
    programs = Programs(folder)
    try:
        supervisor.configure([Program("mine", ["sleep", "600"]), Program("follower", ["sleep", "600"])])
        for name in ("mine", "follower"):
            supervisor.start(name)
        assert not programs.has_waited_for("mine")
        with anyio.fail_after(30):
            # A beginning is known to a hundredth of a second, in which the next one may still come.
            while not programs.has_waited_for("mine"):
                programs.kill("mine")
                programs.start("mine")
                await anyio.lowlevel.checkpoint()
        programs.wake_followers("mine")
        assert not programs.has_waited_for("mine")
        assert not programs.has_waited_for("follower")
    finally:
        supervisor.stop()


async def test_a_program_that_is_down_stays_so_until_it_is_started(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Short, as a Unix socket's path must be.
    supervisor = Supervisor(folder := tmp_path_factory.mktemp("s"))
    programs = Programs(folder)
    try:
        supervisor.configure([Program("mine", ["sleep", "600"])])
        assert programs.is_down("mine")
        programs.start("mine")
        assert not programs.is_down("mine")
        programs.kill("mine")
        assert programs.is_down("mine")
        assert not programs.runs("mine")
        programs.start("mine")
        with anyio.fail_after(30):
            # Nobody tells when it counts as running.
            while not programs.runs("mine"):  # noqa: ASYNC110
                await anyio.sleep(0.1)
        for act in (programs.kill, programs.start):
            with pytest.raises(CannotFailError, match="No theirs is kept by this cluster's own supervisor"):
                act("theirs")
        # Deaths that were wanted are none.
        assert [state.restarts for state in supervisor.states() if state.name == "mine"] == [0]
    finally:
        supervisor.stop()


def test_a_real_node_cannot_be_made_to_fail() -> None:
    node = {"metadata": {"name": "worker-7", "annotations": {}}}
    with pytest.raises(ClusterError, match="Node worker-7 is a real one"):
        check_node(node)
    check_node({"metadata": {"name": "node-1", "annotations": {"kwok.x-k8s.io/node": "fake"}}})
