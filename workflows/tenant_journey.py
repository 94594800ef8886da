"""The whole diagram for one tenant: it comes, creates a virtual machine, is scaled out and in by load, and goes.

What a phase took is told by `workflow.now()`: the moment at which Temporal handed the task on, so that each holds
a hop through Temporal and the worker, milliseconds when they are idle. Beside it stands what the cluster's own
audit log says, which knows nothing of either.
"""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError

with workflow.unsafe.imports_passed_through():
    from activities.autoscaling import Autoscaling
    from activities.tenants import Tenants

from workflows.autoscale import AutoscaleUnderLoad
from workflows.create_vm import CreateVirtualMachine
from workflows.failures import FailureType, came_halfway, failure, type_of, words_of
from workflows.journey_models import JourneyLoad, JourneyOrder, JourneyPhase, TenantJourneyOutcome
from workflows.models import (
    Autoscaled,
    AutoscaleOrder,
    LoadOrder,
    ReplicaSetOrder,
    VirtualMachineCreated,
    VirtualMachineOrder,
)
from workflows.options import CLEAN_UP, CREATE_TENANT, waiting
from workflows.saga import Saga, run_child, stop_if_cancelled, uninterrupted
from workflows.tenant_models import Tenant

__all__ = ["LEFT_BEHIND", "PHASE", "TenantJourney"]

PHASE = "phase"
"""Memo: the phase passed last, so that one list shows how far many journeys are."""
LEFT_BEHIND = "LeftBehind"
"""Type of the failure of a journey that was cancelled and could not be undone."""


@workflow.defn
class TenantJourney:
    """Returns how far it came: a journey that fails is to be counted, not lost. Raises only when it is cancelled."""

    @workflow.init
    def __init__(self, order: JourneyOrder) -> None:
        self._order = order
        self._labels = order.tenant.labels
        self._saga = Saga()
        self._began = self._since = workflow.info().start_time
        self._took: dict[JourneyPhase, timedelta] = {}
        self._created: VirtualMachineCreated | None = None
        self._scaled: Autoscaled | None = None

    @workflow.run
    async def run(self, _order: JourneyOrder) -> TenantJourneyOutcome:
        stopped_at, problem, failed_by = None, "", None
        try:
            await self._travel()
        except (Exception, asyncio.CancelledError) as error:  # a cancellation is no Exception
            stopped_at = next(phase for phase in self._order.phases if phase not in self._took)
            problem, failed_by = " ".join(words_of(error).split()), type_of(error)

        self._since = workflow.now()
        left = await uninterrupted(self._saga.undo())
        if workflow.cancellation_reason() is not None:
            raise _cancelled(left)
        if not left:
            self._pass(JourneyPhase.GONE)
        elif stopped_at is None:
            stopped_at, problem = JourneyPhase.GONE, "; ".join(left)
        if stopped_at is None:
            self._took[JourneyPhase.WHOLE] = workflow.now() - self._began
        return TenantJourneyOutcome(
            self._took,
            stopped_at,
            problem,
            left,
            self._created.arrows if self._created else [],
            self._scaled.decisions if self._scaled else [],
            self._scaled.load if self._scaled else None,
            failed_by,
        )

    async def _travel(self) -> None:
        order = self._order.tenant
        self._saga.will_undo(
            (
                f"namespace {order.namespace}",
                lambda: workflow.execute_activity_method(Tenants.delete_tenant, order, **CLEAN_UP),
            )
        )
        tenant = await workflow.execute_activity_method(Tenants.create_tenant, order, **CREATE_TENANT)
        self._pass(JourneyPhase.TENANT_CREATED)

        # 1-11: what it makes, and what is made for it below, goes with the tenant's namespace
        await self._create_virtual_machine(tenant)

        # 12-15
        if self._order.load is not None:
            await self._autoscale(tenant, self._order.load)

    async def _create_virtual_machine(self, tenant: Tenant) -> None:
        order = VirtualMachineOrder(tenant, self._order.manifest, self._labels, self._order.running_within)
        try:
            created = self._created = await run_child(CreateVirtualMachine.run, order, name="create")
        except ChildWorkflowError as error:
            if accepted_at := came_halfway(error):
                self._pass(JourneyPhase.VM_ACCEPTED, accepted_at)
            raise
        if created.machine is None:
            answer = created.answer
            raise failure(
                FailureType.REFUSED, f"The gateway answered {answer.code} {answer.reason}: {answer.message}"
            )
        self._pass(JourneyPhase.VM_ACCEPTED, created.accepted_at)
        self._pass(JourneyPhase.VM_RUNNING, created.running_at)

    async def _autoscale(self, tenant: Tenant, wanted: JourneyLoad) -> None:
        self._since = workflow.now()
        replica_set = ReplicaSetOrder(
            tenant.namespace, wanted.replica_set, wanted.autoscaler, self._labels, wanted.ready_within
        )
        target = await workflow.execute_activity_method(
            Autoscaling.create_replica_set, replica_set, **waiting(wanted.ready_within)
        )
        self._pass(JourneyPhase.REPLICA_SET_READY)

        load = LoadOrder(target, wanted.users, wanted.ramp, wanted.hold)
        order = AutoscaleOrder(target, load, wanted.settled_within, wanted.scaled_in_within)
        try:
            scaled = self._scaled = await run_child(AutoscaleUnderLoad.run, order, name="autoscale")
        except ChildWorkflowError as error:
            if settled_at := came_halfway(error):
                self._pass(JourneyPhase.SCALED_OUT, settled_at)
            raise
        self._pass(JourneyPhase.SCALED_OUT, scaled.settled_at)
        self._pass(JourneyPhase.SCALED_IN)

    def _pass(self, phase: JourneyPhase, at: datetime | None = None) -> None:
        """Note that a phase is over, now or at the moment a child has told."""
        at = at or workflow.now()
        self._took[phase], self._since = at - self._since, at
        workflow.upsert_memo({PHASE: phase})
        stop_if_cancelled()


def _cancelled(left: list[str]) -> BaseException:
    if left:
        return ApplicationError(
            f"Cancelled, and cleanup left something behind: {'; '.join(left)}", type=LEFT_BEHIND, non_retryable=True
        )
    return asyncio.CancelledError()
