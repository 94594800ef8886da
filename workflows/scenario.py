"""One Gherkin scenario as a durable session.

Each step is an update with an id of its own, so a step that is repeated after a crash returns what the first
one returned. The session owns the cleanup: it undoes everything when it is ended, is cancelled, or nobody has
spoken to it for `idle_timeout`.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.access import Access
    from activities.autoscaling import Autoscaling
    from activities.evidence import Evidence
    from activities.faults import Faults
    from activities.gateway import Gateway
    from activities.tenants import Tenants
    from activities.virtual_machines import VirtualMachines

from workflows.access_models import (
    AccessMatrix,
    AccessOrder,
    DoorAnswer,
    DoorRequest,
    LoggedReason,
    SecretOrder,
    WithdrawnToken,
    WithdrawnTokenOrder,
)
from workflows.autoscale import AutoscaleUnderLoad, PressAutoscaler
from workflows.create_vm import CreateVirtualMachine
from workflows.failures import FailureType, failure
from workflows.fault_models import (
    Instance,
    LauncherKill,
    NodeFault,
    Outage,
    OutageEnded,
    OutageEvidence,
    OutageRecord,
    Recovery,
    RecoveryEvidence,
    RecoveryWait,
)
from workflows.faults import Breakages, mend_node
from workflows.models import (
    Autoscaled,
    AutoscaleOrder,
    GatewayAnswer,
    GatewayRequest,
    ReplicaSetOrder,
    ReplicaSetRef,
    ReplicasWait,
    ScaleState,
    ScenarioOrder,
    StepsTaken,
    VirtualMachineCreated,
    VirtualMachineOrder,
    VirtualMachineRef,
    VirtualMachineState,
    VirtualMachineWait,
)
from workflows.options import ASKED_WITHIN, AT_ONCE, CLEAN_UP, CREATE_TENANT, EVIDENCE, QUICK, TRIED_WITHIN, waiting
from workflows.quota_models import Pressed, PressOrder, ReasonWait, Seen, Strain, StuckWait, Tries, TriesWait, seen_in
from workflows.saga import Saga, at_once, run_child, uninterrupted
from workflows.tenant_models import Tenant, TenantOrder

__all__ = ["ENDINGS", "Scenario"]

ENDINGS = {
    FailureType.ENDED: "This scenario is over: it was told to end, or nobody spoke to it for too long.",
    FailureType.CANCELLED: "This scenario was cancelled.",
}
"""What a step is told that comes too late."""


@workflow.defn
class Scenario:
    """Returns what cleanup could not undo; an empty list is a clean end."""

    @workflow.init
    def __init__(self, order: ScenarioOrder) -> None:
        self._idle_timeout: timedelta = order.idle_timeout
        self._saga = Saga()
        self._breakages = Breakages(self._saga)
        self._ended = False
        self._ended_by = FailureType.ENDED
        self._spoken_to = 0
        # A dict for its order: a set of tasks has another in each replay.
        self._steps: dict[asyncio.Task[object], str] = {}
        """Those under way, each with the id of its update."""
        self._finished: list[str] = []
        self._children = 0
        self._owners: dict[str, str] = {}
        """Of each namespace, the tenant whose it is."""

    @workflow.run
    async def run(self, _order: ScenarioOrder) -> list[str]:
        try:
            await self._until_ended_or_idle()
        except asyncio.CancelledError:
            self._ended_by = FailureType.CANCELLED
            workflow.logger.info("cancelled, undoing")
        self._ended = True
        return await uninterrupted(self._undo())

    async def _undo(self) -> list[str]:
        # A step that is still running may be making the very thing that is to be undone.
        for step in self._steps:
            step.cancel()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return await self._saga.undo()

    async def _until_ended_or_idle(self) -> None:
        while not self._ended:
            heard = self._spoken_to
            try:
                await workflow.wait_condition(
                    lambda heard=heard: self._ended or self._spoken_to != heard,  # type: ignore[misc]
                    timeout=self._idle_timeout,
                )
            except TimeoutError:
                # A worker that was away hears of the timer and of who spoke meanwhile at the same moment.
                if self._spoken_to == heard and workflow.all_handlers_finished():
                    workflow.logger.warning("nobody spoke to this scenario for %s, undoing", self._idle_timeout)
                    return

    @contextmanager
    def _step(self) -> Iterator[None]:
        if self._ended:
            raise failure(self._ended_by, ENDINGS[self._ended_by])
        task, update = asyncio.current_task(), workflow.current_update_info()
        assert task is not None
        assert update is not None
        self._spoken_to += 1
        self._steps[task] = update.id
        try:
            yield
        finally:
            self._finished.append(self._steps.pop(task))

    @workflow.update
    async def create_tenant(self, order: TenantOrder) -> Tenant:
        with self._step():
            [tenant] = await self._make_tenants([order])
            return tenant

    @workflow.update
    async def create_tenants(self, orders: list[TenantOrder]) -> list[Tenant]:
        with self._step():
            return await self._make_tenants(orders)

    async def _make_tenants(self, orders: list[TenantOrder]) -> list[Tenant]:
        owners = dict(self._owners)
        for order in orders:
            _check_owner(owners.setdefault(order.namespace, order.name), order)
        self._owners = owners
        self._saga.will_undo(*((f"namespace {order.namespace}", partial(_remove_tenant, order)) for order in orders))
        return await at_once([partial(_make_tenant, order) for order in orders], AT_ONCE)

    @workflow.update
    async def change_tenant(self, order: TenantOrder) -> Tenant:
        """Bring a tenant that is there to another shape."""
        with self._step():
            if order.namespace not in self._owners:
                raise failure(
                    FailureType.REFUSED,
                    f"{order.name} has no namespace {order.namespace}: a tenant that is changed keeps its own.",
                )
            _check_owner(self._owners[order.namespace], order)
            return await _make_tenant(order)

    @workflow.update
    async def create_virtual_machine(self, order: VirtualMachineOrder) -> VirtualMachineCreated:
        """What it makes goes with the tenant's namespace."""
        with self._step():
            self._children += 1
            return await run_child(CreateVirtualMachine.run, order, name=f"create-{self._children}")

    @workflow.update
    async def create_replica_set(self, order: ReplicaSetOrder) -> ReplicaSetRef:
        """What it makes goes with the tenant's namespace."""
        with self._step():
            return await workflow.execute_activity_method(
                Autoscaling.create_replica_set, order, **waiting(order.ready_within)
            )

    @workflow.update
    async def autoscale_under_load(self, order: AutoscaleOrder) -> Autoscaled:
        with self._step():
            self._children += 1
            return await run_child(AutoscaleUnderLoad.run, order, name=f"autoscale-{self._children}")

    @workflow.update
    async def press_autoscaler(self, order: PressOrder) -> Pressed:
        with self._step():
            self._children += 1
            return await run_child(PressAutoscaler.run, order, name=f"press-{self._children}")

    @workflow.update
    async def await_stuck(self, wait: StuckWait) -> Strain:
        with self._step():
            return await workflow.execute_activity_method(Autoscaling.await_stuck, wait, **waiting(wait.within))

    @workflow.update
    async def await_replicas(self, wait: ReplicasWait) -> ScaleState:
        with self._step():
            return await workflow.execute_activity_method(Autoscaling.await_replicas, wait, **waiting(wait.within))

    @workflow.update
    async def request_gateway(self, request: GatewayRequest) -> GatewayAnswer:
        with self._step():
            return await _send(request)

    @workflow.update
    async def request_gateway_at_once(self, requests: list[GatewayRequest]) -> list[Seen]:
        with self._step():
            answers = await at_once([partial(_send, request) for request in requests], AT_ONCE)
            return [seen_in(answer) for answer in answers]

    @workflow.update
    async def await_running(self, wait: VirtualMachineWait) -> VirtualMachineState:
        with self._step():
            return await workflow.execute_activity_method(VirtualMachines.await_running, wait, **waiting(wait.within))

    @workflow.update
    async def await_reason(self, wait: ReasonWait) -> str:
        """What the machine's condition says that has the words, as the platform sees it."""
        with self._step():
            return await workflow.execute_activity_method(VirtualMachines.await_reason, wait, **waiting(wait.within))

    @workflow.update
    async def read_launcher_limits(self, machine: VirtualMachineRef) -> dict[str, str]:
        with self._step():
            return await workflow.execute_activity_method(VirtualMachines.read_launcher_limits, machine, **QUICK)

    @workflow.update
    async def observe_tries(self, wait: TriesWait) -> list[Tries]:
        with self._step():
            return await workflow.execute_activity_method(Evidence.observe_tries, wait, **waiting(wait.within))

    @workflow.update
    async def list_virtual_machines(self, namespace: str) -> list[str]:
        """Names, as the platform's administrator sees them."""
        with self._step():
            return await workflow.execute_activity_method(VirtualMachines.list_names, namespace, **QUICK)

    @workflow.update
    async def create_secret(self, order: SecretOrder) -> None:
        """It goes with the tenant's namespace."""
        with self._step():
            await workflow.execute_activity_method(Access.create_secret, order, **QUICK)

    @workflow.update
    async def request_at_door(self, request: DoorRequest) -> DoorAnswer:
        with self._step():
            return await workflow.execute_activity_method(Access.request_at_door, request, **waiting(ASKED_WITHIN))

    @workflow.update
    async def try_everything(self, order: AccessOrder) -> AccessMatrix:
        """It leaves nothing behind."""
        with self._step():
            return await workflow.execute_activity_method(Access.try_everything, order, **waiting(TRIED_WITHIN))

    @workflow.update
    async def withdraw_token(self, order: WithdrawnTokenOrder) -> WithdrawnToken:
        with self._step():
            return await workflow.execute_activity_method(
                Gateway.withdraw_token, order, **waiting(order.watched_for + ASKED_WITHIN)
            )

    @workflow.update
    async def read_logs(self, request_id: str) -> LoggedReason:
        with self._step():
            return await workflow.execute_activity_method(Access.read_logs, request_id, **waiting(ASKED_WITHIN))

    @workflow.update
    async def read_instance(self, machine: VirtualMachineRef) -> Instance:
        with self._step():
            return await workflow.execute_activity_method(Faults.read_instance, machine, **QUICK)

    @workflow.update
    async def kill_launcher(self, kill: LauncherKill) -> None:
        """Nothing is to be undone: virt-controller makes another, or the tenant's end does."""
        with self._step():
            await workflow.execute_activity_method(Faults.kill_launcher, kill, **QUICK)

    @workflow.update
    async def fail_node(self, fault: NodeFault) -> None:
        with self._step():
            await self._breakages.fail_node(fault)

    @workflow.update
    async def mend_node(self, fault: NodeFault) -> None:
        with self._step():
            await mend_node(fault)

    @workflow.update
    async def take_down(self, outage: Outage) -> None:
        """Returns when the program is away, for the next steps to be done while it is."""
        with self._step():
            await self._breakages.take_down(outage)

    @workflow.update
    async def await_back(self, outage: Outage) -> OutageEnded:
        with self._step():
            return await self._breakages.await_back(outage)

    @workflow.update
    async def await_recovery(self, wait: RecoveryWait) -> Recovery:
        """Until it runs in another life, and the proof of how that came."""
        with self._step():
            instance = await workflow.execute_activity_method(
                VirtualMachines.await_recovery, wait, **waiting(wait.within)
            )
            evidence = RecoveryEvidence(wait.machine, wait.before, wait.node_failed)
            arrows = await workflow.execute_local_activity_method(Evidence.observe_recovery, evidence, **EVIDENCE)
            return Recovery(instance, arrows)

    @workflow.update
    async def observe_outage(self, evidence: OutageEvidence) -> OutageRecord:
        with self._step():
            return await workflow.execute_local_activity_method(Evidence.observe_outage, evidence, **EVIDENCE)

    @workflow.query
    def ended_by(self) -> FailureType:
        """Why it takes no steps any more, for whoever comes too late."""
        return self._ended_by

    @workflow.query
    def steps_taken(self) -> StepsTaken:
        return StepsTaken(list(self._finished), list(self._steps.values()), self._ended)

    @workflow.signal
    def resume(self) -> None:
        """Another test runner takes this scenario up: it is not alone."""
        self._spoken_to += 1

    @workflow.signal
    def end(self) -> None:
        """Nothing more will be asked: clean up and finish."""
        self._ended = True


def _check_owner(owner: str, order: TenantOrder) -> None:
    if owner != order.name:
        raise failure(
            FailureType.REFUSED, f"Namespace {order.namespace} is {owner}'s: {order.name} cannot have it, too."
        )


async def _make_tenant(order: TenantOrder) -> Tenant:
    return await workflow.execute_activity_method(Tenants.create_tenant, order, **CREATE_TENANT)


async def _remove_tenant(order: TenantOrder) -> None:
    await workflow.execute_activity_method(Tenants.delete_tenant, order, **CLEAN_UP)


async def _send(request: GatewayRequest) -> GatewayAnswer:
    return await workflow.execute_activity_method(Gateway.send, request, **QUICK)
