"""The measurements on a running cluster. Each prints nothing but its phase; the figures are the result."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from clusters.local import LocalCluster
from virtflow.bench.audit_times import machine_times, requests_of_harness, tenant_times
from virtflow.bench.bare import BareClient
from virtflow.bench.figures import Figure, Figures, percentile
from virtflow.bench.gateway import measure_gateway
from virtflow.bench.harness import RUNNING_WITHIN, Created, create_machine, create_machines, machine_manifest
from virtflow.bench.processes import usage_of
from virtflow.journey import journey_orders, travel
from virtflow.temporal import connect
from virtflow.terminal import phase
from workflows.journey_models import JourneyPhase
from workflows.labels import labels_of
from workflows.tenant_models import Tenant, TenantOrder

__all__ = ["Bench"]

PARALLEL = 20
ALONE = 40
LARGE = 1000


class Bench:
    """Everything that is measured on one cluster."""

    def __init__(self, cluster: LocalCluster, figures: Figures, run_id: str) -> None:
        self._cluster = cluster
        self._endpoints = cluster.endpoints()
        self._figures = figures
        self._run = run_id

    async def measure(self, most: int, rounds: int) -> None:
        self._temporal = await connect(self._endpoints)
        async with BareClient.connected(self._endpoints) as self._bare:
            # Whatever comes first pays for connections, caches and imports that nobody wants to measure.
            with phase("Warming up"):
                await self._with_tenants("warm", 2, self._warm_up)
            await self._with_tenants("gateway", 1, lambda tenants: self._through_gateway(tenants[0], rounds))
            await self._with_tenants("alone", 1, self._reaction_alone)
            await self._with_tenants("parallel", PARALLEL, self._reaction_in_parallel)
            await self._journeys_alone()
            await self._tenants_at_once(rounds)
            count = 10
            while count <= most:
                # The largest takes minutes, in which chance evens itself out.
                await self._throughput(count, rounds if count < LARGE else 1)
                count *= 10

    async def _warm_up(self, tenants: list[Tenant]) -> None:
        await create_machines(self._temporal, f"{self._run}/warm", tenants, 10)

    async def _through_gateway(self, tenant: Tenant, rounds: int) -> None:
        await measure_gateway(self._bare, self._endpoints, self._figures, tenant, rounds)

    async def _reaction_alone(self, tenants: list[Tenant]) -> None:
        with phase(f"Reaction to Running, {ALONE} virtual machines one after the other"):
            created = [
                await create_machine(self._temporal, f"{self._run}/alone", tenants[0], f"vm-{number:04}")
                for number in range(ALONE)
            ]
        self._add_reaction("Running written → next step, alone, P95", created, goal=10)

    async def _reaction_in_parallel(self, tenants: list[Tenant]) -> None:
        created: list[Created] = []
        with phase(f"Reaction to Running, {PARALLEL} virtual machines at once, 5 times"):
            for number in range(5):
                created += await create_machines(
                    self._temporal, f"{self._run}/parallel-{number}", tenants, PARALLEL, first=number * PARALLEL
                )
        self._add_reaction(f"Running written → next step, {PARALLEL} in parallel, P95", created, goal=50)

    def _add_reaction(self, title: str, created: Sequence[Created], goal: float) -> None:
        times = machine_times(self._endpoints.audit_log)
        delays = []
        for machine in created:
            running = times[machine.namespace, machine.name].running
            assert running is not None
            delays.append((machine.acted - running).total_seconds() * 1000)
        detail = {"P50": percentile(delays, 50), "P95": percentile(delays, 95), "longest": max(delays)}
        self._figures.add(Figure(title, percentile(delays, 95), "ms", goal, n=len(delays), detail=detail))

    async def _journeys_alone(self, count: int = 5) -> None:
        """Wall time over the time in which the cluster was at work for the journey, one thing after the other."""
        ratios, walls = [], []
        for number in range(count):
            orders = journey_orders(f"{self._run}-alone-{number}", 1, None)
            [journey] = await travel(self._temporal, orders)
            [order] = orders.values()
            assert journey.outcome is not None, journey.problem
            wall = journey.outcome.took[JourneyPhase.WHOLE].total_seconds()
            critical = self._critical_path(order.tenant.namespace)
            walls.append(wall)
            ratios.append(wall / critical)
        detail = {"wall": walls, "ratios": ratios}
        self._figures.add(
            Figure(
                "a journey's time / the cluster's own", statistics.median(ratios), "", 1.05, n=count, detail=detail
            )
        )

    def _critical_path(self, namespace: str) -> float:
        tenant = tenant_times(self._endpoints.audit_log)[namespace]
        [machine] = [times for (of, _), times in machine_times(self._endpoints.audit_log).items() if of == namespace]
        spans = (
            (tenant.created, tenant.prepared),
            (machine.asked, machine.running),
            (tenant.deleted, tenant.gone),
        )
        return sum(_seconds(begin, end) for begin, end in spans)

    async def _tenants_at_once(self, rounds: int) -> None:
        """Each makes itself, creates a virtual machine, sees it Running, and is gone; the harness and a script."""
        harness, bare = [], []
        for number in range(rounds):
            orders = journey_orders(f"{self._run}-at-once-{number}", PARALLEL, None)
            began = datetime.now().astimezone()
            journeys = await travel(self._temporal, orders)
            assert all(journey.failure == "" for journey in journeys), journeys
            harness.append(self._running_and_gone(began, [order.tenant for order in orders.values()]))
            began = datetime.now().astimezone()
            tenants = [_tenant_order(self._run, f"bare-{number}", each) for each in range(PARALLEL)]
            with phase(f"{PARALLEL} tenants, by a bare client"):
                await asyncio.gather(*(self._bare_journey(tenant) for tenant in tenants))
            bare.append(self._running_and_gone(began, tenants))
            if number == 0:
                self._add_requests({order.tenant.namespace for order in orders.values()})
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(harness, bare, strict=True)]
        detail = {"harness (running, gone)": harness, "bare (running, gone)": bare}
        self._figures.add(
            Figure(
                f"{PARALLEL} tenants at once: all Running, harness / bare client",
                statistics.median(ratios), "", 1.1, n=rounds, detail=detail,
            )
        )  # fmt: skip
        whole = statistics.median(gone for _, gone in harness)
        self._figures.add(
            Figure(f"{PARALLEL} tenants at once: the whole, clean-up included", whole, "s", 10, n=rounds)
        )

    async def _bare_journey(self, order: TenantOrder) -> None:
        token = await self._bare.token_of(await self._bare.create_tenant(order))
        await self._bare.run_machine(token, machine_manifest("test-vm"), "test-vm")
        await self._bare.delete_tenants([order])

    def _running_and_gone(self, began: datetime, tenants: Sequence[TenantOrder]) -> tuple[float, float]:
        """Seconds until the last one's virtual machine runs, and until the last one is gone."""
        namespaces = {tenant.namespace for tenant in tenants}
        running = [
            times.running
            for (namespace, _), times in machine_times(self._endpoints.audit_log).items()
            if namespace in namespaces
        ]
        gone = [times.gone for name, times in tenant_times(self._endpoints.audit_log).items() if name in namespaces]
        assert len(running) == len(gone) == len(namespaces)
        return max(_seconds(began, at) for at in running), max(_seconds(began, at) for at in gone)

    def _add_requests(self, namespaces: set[str]) -> None:
        made = requests_of_harness(self._endpoints.audit_log, namespaces)
        machines = {request: count / PARALLEL for request, count in made.items() if " virtualmachines" in request}
        title, detail = "requests for its virtual machine, a journey", dict(made)
        self._figures.add(Figure(title, sum(machines.values()), "", 2, n=PARALLEL, detail=detail))

    async def _throughput(self, count: int, rounds: int) -> None:
        """So many virtual machines at once, in as many as twenty tenants, by the bare client and by the harness."""
        runs = []
        for number in range(rounds):
            name = f"{count}-{number}"
            bare = await self._timed(f"bare-{name}", count, lambda tenants: self._create_bare(tenants, count))
            harness = await self._timed(
                f"harness-{name}",
                count,
                lambda tenants, name=name: create_machines(  # type: ignore[misc]
                    self._temporal, f"{self._run}/{name}", tenants, count
                ),
            )
            runs.append({"bare": bare, "harness": harness})
        ratio = statistics.median(run["harness"]["a second"] / run["bare"]["a second"] for run in runs)
        title = f"{count} virtual machines at once: throughput, harness / bare client"
        self._figures.add(Figure(title, ratio, "", 0.9, at_least=True, n=rounds, detail={"runs": runs}))
        memory = usage_of(self._cluster)["worker"].memory
        self._figures.add(Figure(f"the worker's memory after {count} at once", memory, "MiB"))

    async def _create_bare(self, tenants: list[Tenant], count: int) -> None:
        tokens = [await self._bare.token_of(tenant) for tenant in tenants]
        names = [f"vm-{number:04}" for number in range(count)]
        async with asyncio.timeout(RUNNING_WITHIN.total_seconds()):
            await asyncio.gather(
                *(
                    self._bare.run_machine(tokens[number % len(tokens)], machine_manifest(name), name)
                    for number, name in enumerate(names)
                )
            )

    async def _timed(self, name: str, count: int, create: "Use") -> dict[str, float]:
        """Virtual machines a second, and each program's seconds of CPU."""
        measured: dict[str, float] = {}

        async def use(tenants: list[Tenant]) -> None:
            with phase(f"{count} virtual machines at once, {name.partition('-')[0]}"):
                began, before = time.monotonic(), usage_of(self._cluster)
                await create(tenants)
                measured["a second"] = count / (time.monotonic() - began)
                after = usage_of(self._cluster)
                measured.update({f"CPU {each}": used.cpu - before[each].cpu for each, used in after.items()})

        await self._with_tenants(name, min(PARALLEL, count), use)
        return measured

    async def _with_tenants(self, name: str, count: int, use: "Use") -> None:
        orders = [_tenant_order(self._run, name, number) for number in range(count)]
        try:
            await use([await self._bare.create_tenant(order) for order in orders])
        finally:
            await self._bare.delete_tenants(orders)


Use = Callable[[list[Tenant]], Awaitable[object]]


def _tenant_order(run: str, what: str, number: int) -> TenantOrder:
    name = f"{what}-{run}-{number:02}"
    return TenantOrder(name, name, labels_of(f"{run}/{name}"))


def _seconds(begin: datetime | None, end: datetime | None) -> float:
    assert begin is not None
    assert end is not None
    return (end - begin).total_seconds()
