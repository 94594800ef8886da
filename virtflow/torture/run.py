"""One run: a cluster of its own, kills while journeys are on their way, the checks, a table."""

import asyncio
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clusters.local import LocalCluster
from virtflow.errors import InfrastructureError, InputError
from virtflow.exit_codes import ExitCode
from virtflow.interrupts import undo
from virtflow.kube import KubeClient
from virtflow.run import keep_logs
from virtflow.settings import Settings
from virtflow.temporal import answering, connect
from virtflow.terminal import console, errors, phase
from virtflow.torture.checks import left_in_cluster, left_on_machine, ports_of, unlike_one_create
from virtflow.torture.kills import Killed, carry_out
from virtflow.torture.plan import Kill, plan_kills
from virtflow.torture.runner import RUNNER, Runner
from virtflow.torture.table import Tortured, lines_of, write_result
from virtflow.torture.travel import Travelled, travel_until

__all__ = ["run_torture"]

JOURNEYS_END_WITHIN = timedelta(minutes=20)
"""After the last kill. Each of their phases has a limit of its own, which says more."""
LARGEST_SEED = 1_000_000


def run_torture(
    settings: Settings, *, kills: int, seed: int | None, journeys: int, only: Collection[str] = ()
) -> ExitCode:
    """Torture and report; return the exit code. `journeys` are on their way at a time, one of them with load.

    Killed are the programs named in `only`, or all.
    """
    seed = secrets.randbelow(LARGEST_SEED) if seed is None else seed
    run_id = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    report = Path.cwd() / "reports" / f"torture-{run_id}"
    report.mkdir(parents=True)
    settings = settings.model_copy(update={"cluster": f"{settings.cluster}-torture"})
    cluster = LocalCluster(settings)
    console.print(f"Seed {seed}: with --seed {seed} the same programs are killed in the same order.")
    cluster.down()
    began = time.monotonic()
    result = None
    ports: list[int] = []
    try:
        cluster.up()
        ports = ports_of(cluster.folder)
        plan = plan_kills(seed, kills, _victims(cluster, only))
        with answering():
            result = asyncio.run(_torture(cluster, Runner(settings, report), run_id, plan, journeys))
    finally:
        try:
            keep_logs(cluster, report / "logs")
        finally:
            undo(f"Taking down cluster {cluster.name}", cluster.down)
            console.print(f"\nReport: {report}", markup=False)
    took = timedelta(seconds=time.monotonic() - began)
    result = replace(result, left=[*result.left, *left_on_machine(cluster.folder, ports)])
    write_result(report, result, seed, took)
    _print(result)
    return result.code


def _victims(cluster: LocalCluster, only: Collection[str]) -> list[str]:
    there = [*(each.name for each in cluster.status()), RUNNER]
    if unknown := sorted(set(only) - set(there)):
        raise InputError(f"There is no program {', '.join(unknown)} to kill. There are: {', '.join(there)}.")
    return [name for name in there if name in only or not only]


async def _torture(
    cluster: LocalCluster, runner: Runner, run_id: str, plan: Sequence[Kill], at_once: int
) -> Tortured:
    with phase(f"{len(plan)} kills, {at_once} journeys at a time") as show:
        killed, journeys = await _kill_on_the_way(cluster, runner, run_id, plan, at_once, show)
    namespaces = {journey.namespace for journey in journeys}
    endpoints = cluster.endpoints()
    async with await KubeClient.connect(endpoints.kubeconfig) as kube:
        left = await left_in_cluster(kube, namespaces)
    problems, notes = unlike_one_create(endpoints.audit_log, namespaces)
    failed = [f"{each.journey.tenant} {each.journey.failure}" for each in journeys if each.journey.failure]
    notes += [*runner.notes, *_deaths(cluster, killed)]
    return Tortured(killed, journeys, [*failed, *runner.problems, *problems], left, notes)


async def _kill_on_the_way(
    cluster: LocalCluster,
    runner: Runner,
    run_id: str,
    plan: Sequence[Kill],
    at_once: int,
    show: Callable[[str], None],
) -> tuple[list[Killed], list[Travelled]]:
    temporal = await connect(cluster.endpoints())
    over = asyncio.Event()
    travelling = asyncio.create_task(travel_until(over, temporal, run_id, at_once))
    try:
        killed = await carry_out(cluster, runner, plan, show)
        over.set()
        show("until the last journeys have ended")
        async with asyncio.timeout(JOURNEYS_END_WITHIN.total_seconds()):
            journeys = await travelling
        await asyncio.to_thread(cluster.await_recovered)
    except TimeoutError:
        raise InfrastructureError(
            f"Some journeys have not ended {JOURNEYS_END_WITHIN} after the last kill, though each of their steps has "
            f"a limit. The logs that the report keeps may say who hangs."
        ) from None
    finally:
        travelling.cancel()
    return killed, journeys


def _deaths(cluster: LocalCluster, killed: Sequence[Killed]) -> list[str]:
    """Which programs died though nobody killed them: of what others did not answer, say."""
    by_us = Counter(each.kill.victim for each in killed)
    deaths = {each.name: each.restarts - by_us[each.name] for each in cluster.status()}
    return [f"{name} died by itself: {count}" for name, count in sorted(deaths.items()) if count > 0]


def _print(result: Tortured) -> None:
    console.print()
    for line in lines_of(result):
        console.print(line, markup=False)
    console.print(f"\n{len(result.journeys)} journeys, {len(result.killed)} kills.")
    for problem in result.problems:
        errors.print(problem, style="red", markup=False)
    for what in result.left:
        errors.print(f"left behind: {what}", style="red", markup=False)
    for note in result.notes:
        console.print(note, markup=False)
