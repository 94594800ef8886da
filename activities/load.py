"""Load on the guests of a replica set, by the cluster's Locust."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

from temporalio import activity

from activities.deadline import time_left
from activities.errors import gave_up
from activities.heartbeat import heartbeating
from clusters.endpoints import Endpoints
from load.results import Latencies, LoadPlan, LoadResult, latencies_of
from load.runner import LoadError, await_begin, run_load, stop_load
from workflows.failures import FailureType, failure
from workflows.models import LoadOrder, LoadOutcome, LoadRun, LoadStretch
from workflows.options import LOAD_TURN

__all__ = ["Load", "plan_of"]

MINUTE = timedelta(minutes=1)

STRETCH = 10
"""Windows, of about a second each, that are looked at together."""


class Load:
    """Has Locust carry out loads. Each is found again by its folder if the worker dies."""

    def __init__(self, endpoints: Endpoints, folder: Path) -> None:
        self._endpoints = endpoints
        self._folder = folder

    @activity.defn(name="run_load")
    async def run(self, run: LoadRun) -> LoadOutcome:
        """Apply the load, when its turn comes, until its plan is over or `stop` was called.

        A worker that ends leaves it as it is: the next one goes on with this very activity.
        """
        plan = plan_of(run.load, self._endpoints)
        async with heartbeating():
            try:
                result = await run_load(
                    plan, self._folder_of(run), lambda _: None, is_handed_on=activity.is_worker_shutdown
                )
            except LoadError as error:
                raise failure(FailureType.LOAD, str(error)) from error
        return outcome_of(result)

    @activity.defn(name="await_load")
    async def await_begin(self, run: LoadRun) -> timedelta:
        """Until the load has had its turn to begin; how long it waited for it."""
        async with heartbeating():
            try:
                async with asyncio.timeout(time_left(LOAD_TURN).total_seconds()):
                    return await await_begin(self._folder_of(run))
            except TimeoutError:
                raise gave_up(
                    f"The load of {run.load.users} users had no turn within {LOAD_TURN / MINUTE:.0f} minutes: Locust "
                    f"carries out at most so many users at once, and other loads were before it."
                ) from None

    @activity.defn(name="stop_load")
    async def stop(self, run: LoadRun) -> None:
        """Let the load end: its users finish their requests. Harmless if it has ended."""
        stop_load(self._folder_of(run))

    def _folder_of(self, run: LoadRun) -> Path:
        return self._folder / re.sub(r"[^A-Za-z0-9._-]+", "-", run.name)


def plan_of(order: LoadOrder, endpoints: Endpoints) -> LoadPlan:
    target = order.target
    path = f"/namespaces/{target.namespace}/virtualmachineinstancereplicasets/{target.name}/"
    return LoadPlan(endpoints.guests_url + path, order.users, order.ramp, order.hold, order.rate)


def outcome_of(result: LoadResult) -> LoadOutcome:
    windows = result.windows
    stretches = [latencies_of(windows[at : at + STRETCH]) for at in range(max(1, len(windows) - STRETCH + 1))]
    return LoadOutcome(
        whole=stretch_of(result.latencies),
        worst=stretch_of(max(stretches, key=_slowness)),
        last=stretch_of(stretches[-1]),
        never_started=result.never_started,
        resumed=result.resumed,
        restarted=result.restarted,
        waited=result.waited,
    )


def stretch_of(latencies: Latencies) -> LoadStretch:
    return LoadStretch(latencies.n, latencies.failed, latencies.p50, latencies.p95, latencies.p99)


def _slowness(latencies: Latencies) -> float:
    if latencies.n == 0:
        return -1.0
    return float("inf") if latencies.p95 is None else latencies.p95.total_seconds()
