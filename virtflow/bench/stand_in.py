"""What the stand-in for KubeVirt costs: virtual machines straight at the kube-apiserver, as fast as it takes them.

No gateway, no Temporal, nobody else: what is left is Kubernetes and the stand-in. Measured at three sizes, because
what grows faster than the number of machines would only show at the third, on a cluster that has had none before,
because a process keeps the memory it once had. And once more with schemas that say nothing, because the price of the
real ones is the kube-apiserver's to pay.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise

import orjson
import yaml

from clusters.kubevirt.crds import load_crds
from clusters.local import LocalCluster
from clusters.local.kubernetes import CONTROL_PLANE, STORE
from virtflow.bench.figures import Figure, Figures
from virtflow.bench.harness import RUNNING_WITHIN, machine_manifest
from virtflow.bench.processes import Usage, usage_of
from virtflow.errors import VirtflowError
from virtflow.kube import Informer, KubeClient, Object
from virtflow.kube.resources import CRDS, NAMESPACES, SERVICE_ACCOUNTS, VMS
from virtflow.sequence.tail import Tail
from virtflow.terminal import phase

__all__ = ["measure_stand_in"]

STAND_IN = ("virt-api", "virt-controller", "virt-handler", "guests")
ACCOUNTS = "system:serviceaccount:kubevirt:"
AT_ONCE = 100
"""Creates under way. More only wait in the kube-apiserver."""
SAYS_NOTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@dataclass(frozen=True)
class Cluster:
    """What the measurements speak to."""

    local: LocalCluster
    audit_log: Tail
    kube: KubeClient
    machines: Informer
    namespaces: Informer
    accounts: Informer


@dataclass(frozen=True)
class Run:
    """So many virtual machines, from the first create to the last Running."""

    count: int
    accepted: float
    running: float
    """Seconds since the first create."""
    cpu: dict[str, float]
    """Seconds, by program."""
    memory: dict[str, float]
    """MiB afterwards, by program."""
    writes: dict[str, int]
    """By user; those that the kube-apiserver accepted, but for the scheduler's events, which it does not log."""
    lists: int
    """By the stand-in's programs."""


async def measure_stand_in(local: LocalCluster, figures: Figures, run_id: str, most: int) -> None:
    """Add the figures. `most` is the number of machines in the end."""
    endpoints = local.endpoints()
    async with await KubeClient.connect(endpoints.kubeconfig, agent="virtflow-bench") as kube:
        machines, namespaces, accounts = (Informer(kube, each) for each in (VMS, NAMESPACES, SERVICE_ACCOUNTS))
        async with machines.running(), namespaces.running(), accounts.running():
            with closing(Tail(endpoints.audit_log)) as audit_log:
                cluster = Cluster(local, audit_log, kube, machines, namespaces, accounts)
                sizes = [max(1, most // 10), max(2, most // 3), most]
                runs = [await _run(cluster, f"stand-in-{size}-{run_id}", size) for size in sizes]
                _report(figures, runs)
                async with _schemas_that_say_nothing(cluster):
                    free = await _run(cluster, f"schemaless-{run_id}", sizes[1])
                _report_schemas(figures, runs[1], free)


async def _run(cluster: Cluster, namespace: str, count: int) -> Run:
    with phase(f"{count} virtual machines, straight at the kube-apiserver"):
        run = await _started(cluster, namespace, count)
    with phase("Deleting them"):
        await cluster.kube.delete(NAMESPACES, namespace)
        await cluster.kube.delete_all(VMS, namespace)
        await cluster.namespaces.wait_for("", namespace, lambda found: found is None)
    return run


async def _started(cluster: Cluster, namespace: str, count: int) -> Run:
    kube = cluster.kube
    await kube.apply(NAMESPACES, {"metadata": {"name": namespace}})
    await cluster.accounts.wait_for(namespace, "default", lambda account: account is not None)
    for _ in _events(cluster.audit_log):
        pass  # what was before
    before = usage_of(cluster.local)
    limit = asyncio.Semaphore(AT_ONCE)
    body: Object = yaml.load(machine_manifest("vm"), Loader=yaml.CSafeLoader)

    async def create(number: int) -> None:
        async with limit:
            name = f"vm-{number:04}"
            await kube.create(VMS, {**body, "metadata": {**body["metadata"], "name": name}}, namespace)

    began = time.monotonic()
    await asyncio.gather(*map(create, range(count)))
    accepted = time.monotonic() - began
    try:
        async with asyncio.timeout(RUNNING_WITHIN.total_seconds()):
            for number in range(count):
                await cluster.machines.wait_for(namespace, f"vm-{number:04}", _runs)
    except TimeoutError:
        running = sum(_runs(vm) for vm in cluster.machines.items() if vm["metadata"]["namespace"] == namespace)
        raise VirtflowError(
            f"Only {running} of {count} virtual machines ran within {RUNNING_WITHIN}. "
            f"`virtflow logs virt-controller` may say why."
        ) from None
    took, after = time.monotonic() - began, usage_of(cluster.local)
    writes, lists = _counted(_events(cluster.audit_log), namespace)
    return Run(
        count,
        accepted,
        took,
        {name: usage.cpu - before.get(name, Usage(0, 0)).cpu for name, usage in after.items()},
        {name: usage.memory for name, usage in after.items()},
        writes,
        lists,
    )


def _runs(machine: Object | None) -> bool:
    return machine is not None and machine.get("status", {}).get("printableStatus") == "Running"


def _counted(events: Iterator[Object], namespace: str) -> tuple[dict[str, int], int]:
    """The writes in a namespace by user, and the stand-in's lists."""
    writes: Counter[str] = Counter()
    lists = 0
    for event in events:
        user, ref = event["user"]["username"], event.get("objectRef", {})
        if event["verb"] == "list":
            lists += user.startswith(ACCOUNTS)
        elif ref.get("namespace") == namespace and event["responseStatus"]["code"] < 300:
            writes[user] += 1
    return dict(writes), lists


def _events(audit_log: Tail) -> Iterator[Object]:
    """Those that were answered, from where the last reading ended."""
    while (line := audit_log.next_line()) is not None:
        event: Object = orjson.loads(line)
        if event["stage"] == "ResponseComplete":
            yield event


@asynccontextmanager
async def _schemas_that_say_nothing(cluster: Cluster) -> AsyncIterator[None]:
    """Within this block the kube-apiserver takes KubeVirt's objects as they come; virt-api still checks them."""
    try:
        for crd in load_crds():
            without = deepcopy(crd)
            for version in without["spec"]["versions"]:
                version["schema"] = {"openAPIV3Schema": SAYS_NOTHING}
            await cluster.kube.apply(CRDS, without)
        yield
    finally:
        for crd in load_crds():
            await cluster.kube.apply(CRDS, crd)


def _report(figures: Figures, runs: list[Run]) -> None:
    last = runs[-1]
    every = {f"{run.count}": asdict(run) for run in runs}
    at_once = f"{last.count} virtual machines, straight at the kube-apiserver"
    rate = last.count / last.running
    figures.add(Figure(f"{at_once}: Running a second", rate, "", 15, at_least=True, detail=every))
    for name, seconds in sorted(last.cpu.items(), key=lambda item: -item[1]):
        if seconds / last.count >= 0.0005:
            title = f"  {name}: CPU for each, and its memory afterwards ({last.memory[name]:.0f} MiB)"
            figures.add(Figure(title, 1000 * seconds / last.count, "ms"))
    everything = sum(last.cpu[name] for name in (*STORE, *CONTROL_PLANE, *STAND_IN))
    share = sum(last.cpu[name] for name in STAND_IN) / everything
    figures.add(Figure("the stand-in's share of the CPU that Kubernetes and it took", 100 * share, "%", 33))
    figures.add(Figure("writes for each, by whomever", sum(last.writes.values()) / last.count, "", 20))
    figures.add(Figure("lists by the stand-in while they started", sum(run.lists for run in runs), "", 0))
    for name in STAND_IN:
        for fewer, more in pairwise(runs):
            grown = (more.memory[name] - fewer.memory[name]) / (more.count - fewer.count) * 100
            title = f"{name}'s memory for each hundred more, from {fewer.count} to {more.count}"
            figures.add(Figure(title, grown, "MiB"))


def _report_schemas(figures: Figures, full: Run, free: Run) -> None:
    costs = [1000 * run.cpu["kube-apiserver"] / run.count for run in (full, free)]
    title = "kube-apiserver's CPU for each, with KubeVirt's schemas / with none"
    figures.add(
        Figure(title, costs[0] / costs[1], "", n=full.count, detail={"ms, with": costs[0], "without": costs[1]})
    )
