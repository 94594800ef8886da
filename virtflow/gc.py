"""`virtflow gc`: what runs have left in a cluster, and its removal.

What is there is asked of the cluster alone: whoever left it may have taken all memory of it along. Temporal is asked
one thing, whether a run still has sessions, which undo what they made by themselves.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from virtflow.errors import InfrastructureError, InputError, LeftBehindError
from virtflow.exit_codes import ExitCode
from virtflow.kube import KubeClient
from virtflow.kube.inventory import Found
from virtflow.leftovers import asking, find_leftovers, remove_leftovers
from virtflow.runs import checked_id
from virtflow.settings import Settings
from virtflow.temporal import answering, connect
from virtflow.terminal import console, phase, say
from workflows.labels import RUN, run_of

__all__ = ["collect_garbage"]

TEMPORAL_LIMIT = timedelta(seconds=10)
YOUNG = timedelta(minutes=1)
"""Temporal's list of workflows comes late: a run that made something just now may not be in it yet."""

Sessions = Counter[str]
"""How many of each run are open."""


def collect_garbage(settings: Settings, *, runs: Sequence[str], delete: bool, kubeconfig: Path | None) -> ExitCode:
    """List what these runs have left, or all, and remove it if asked to; return the exit code.

    Of the local cluster, or of any that a kubeconfig leads to. A run that is in use, or may be, is removed by its
    name alone. Raises LeftBehindError, which names what stays.
    """
    for run in runs:
        checked_id(run)
    endpoints = None
    if kubeconfig is None:
        endpoints = LocalCluster(settings).endpoints()
        kubeconfig = endpoints.kubeconfig
    with asking():
        return asyncio.run(_collect(kubeconfig, endpoints, runs, delete))


async def _collect(kubeconfig: Path, endpoints: Endpoints | None, runs: Sequence[str], delete: bool) -> ExitCode:
    async with await _connected(kubeconfig) as kube:
        found = await find_leftovers(kube, _selector(runs) if runs else RUN)
        # Asked afterwards: of a run that begins meanwhile, nothing has been found yet.
        sessions = await _open_sessions(endpoints)
        by_run = {
            run: list(objects) for run, objects in groupby(sorted(found.objects, key=_run_label), key=_run_label)
        }
        for run, objects in by_run.items():
            _show(run, objects, sessions)
        if not by_run:
            console.print("Nothing with a run's label is there." if not runs else "Nothing of it is there.")
        chosen = [
            run
            for run, objects in by_run.items()
            if run in runs or (sessions is not None and run not in sessions and not _is_young(objects))
        ]
        if delete and chosen:
            await _remove(kube, {run: by_run[run] for run in chosen})
        _advise(by_run, chosen, delete)
    if found.unseen:
        raise InfrastructureError(
            f"There may be more, for not everything could be looked at: {'; '.join(found.unseen)}."
        )
    return ExitCode.PASSED


def _run_label(found: Found) -> str:
    return found.labels[RUN]


def _is_young(objects: Sequence[Found]) -> bool:
    return max(found.created for found in objects) > datetime.now(UTC) - YOUNG


def _selector(runs: Sequence[str]) -> str:
    return f"{RUN} in ({','.join(runs)})"


async def _connected(kubeconfig: Path) -> KubeClient:
    from kubernetes.aio.config import ConfigException

    try:
        return await KubeClient.connect(kubeconfig, agent="virtflow-gc")
    except (ConfigException, OSError, ValueError) as error:
        raise InputError(f"{kubeconfig} is no kubeconfig that can be used: {error}") from None


async def _open_sessions(endpoints: Endpoints | None) -> Sessions | None:
    """By run, of all workflows that have not ended; None if nobody knows."""
    if endpoints is None:
        say("!", "Whether a run is in use is not known: a kubeconfig does not say where its Temporal is.")
        return None
    try:
        async with asyncio.timeout(TEMPORAL_LIMIT.total_seconds()):
            with answering():
                temporal = await connect(endpoints)
                executions = temporal.list_workflows("ExecutionStatus = 'Running'")
                return Counter([run_of(execution.id) async for execution in executions])
    except (InfrastructureError, TimeoutError) as error:
        why = str(error) or f"no answer within {TEMPORAL_LIMIT.total_seconds():.0f} s."
        say("!", f"Whether a run is in use is not known: {why}")
        return None


async def _remove(kube: KubeClient, by_run: dict[str, list[Found]]) -> None:
    count = sum(map(len, by_run.values()))
    with phase(f"Removing {count} objects of {', '.join(by_run)}"):
        if stays := await remove_leftovers(kube, _selector(list(by_run))):
            raise LeftBehindError(f"Not everything has gone. {'. '.join(stays)}.")


def _show(run: str, objects: Sequence[Found], sessions: Sessions | None) -> None:
    use = f", in use (open workflows: {sessions[run]})" if sessions and sessions[run] else ""
    console.print(f"\n{run}{use}", markup=False)
    rows = [["AGE", "DELETED", "KIND", "NAME", "FINALIZERS"], *map(_row, objects)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        # Not a Table, which cuts to the terminal's width what is to be read, or searched for, in full.
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(line.rstrip(), markup=False)


def _row(found: Found) -> list[str]:
    name = f"{found.namespace}/{found.name}" if found.namespace else found.name
    deleted = f"{_since(found.deleted)} ago" if found.deleted else ""
    return [_since(found.created), deleted, found.resource.kind, name, ", ".join(found.finalizers)]


def _since(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _advise(by_run: dict[str, list[Found]], chosen: Sequence[str], delete: bool) -> None:
    if chosen and not delete:
        console.print("\nNothing was removed. With --delete it is.")
    spared = [run for run in by_run if run not in chosen]
    if spared:
        console.print(
            f"\nSpared, because in use or maybe so: {', '.join(spared)}. What --run names is removed all the same.",
            markup=False,
        )
