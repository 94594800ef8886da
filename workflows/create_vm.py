"""Arrows 1 to 11: a tenant creates a virtual machine, and it runs."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.evidence import Evidence
    from activities.gateway import Gateway
    from activities.virtual_machines import VirtualMachines

from workflows.failures import halfway_at
from workflows.models import (
    CreateEvidence,
    GatewayRequest,
    Verb,
    VirtualMachineCreated,
    VirtualMachineOrder,
    VirtualMachineRef,
    VirtualMachineWait,
)
from workflows.options import EVIDENCE, QUICK, waiting
from workflows.saga import stop_if_cancelled

__all__ = ["CreateVirtualMachine"]


@workflow.defn
class CreateVirtualMachine:
    """A refusal is an answer like another: whether it was wanted is for the scenario to say."""

    @workflow.run
    async def run(self, order: VirtualMachineOrder) -> VirtualMachineCreated:
        # 1-4: the tenant's request, through the gateway's review, admitted and stored
        answer = await workflow.execute_activity_method(
            Gateway.send,
            GatewayRequest(order.tenant, Verb.CREATE, manifest=order.manifest, labels=order.labels),
            **QUICK,
        )
        if answer.code != 201:
            return VirtualMachineCreated(answer)
        stop_if_cancelled()
        accepted_at = workflow.now()
        meta = answer.body["metadata"]
        machine = VirtualMachineRef(meta["namespace"], meta["name"], meta["uid"])

        with halfway_at(accepted_at):
            # 5-11: the controllers, the scheduler and the node make it run
            state = await workflow.execute_activity_method(
                VirtualMachines.await_running,
                VirtualMachineWait(machine, order.running_within),
                **waiting(order.running_within),
            )
            running_at = workflow.now()

            # and the proof of each
            arrows = await workflow.execute_local_activity_method(
                Evidence.observe_create_sequence, CreateEvidence(machine, answer.request_id, order.tenant), **EVIDENCE
            )
        return VirtualMachineCreated(answer, machine, state, arrows, accepted_at, running_at)
