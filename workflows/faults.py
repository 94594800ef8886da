"""What a scenario makes fail, with its end registered before its beginning.

Nodes and programs are everybody's, tenants are not: so who makes them fail also waits until they are well again, as
a step, before the next scenario begins. What is registered here is for the scenario that does not come that far.
"""

import asyncio
from functools import partial

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.faults import Faults
    from activities.outages import Outages

from workflows.failures import FailureType, failure
from workflows.fault_models import NodeFault, Outage, OutageEnded
from workflows.options import CLEAN_UP, NODE_CHANGES_WITHIN, holding, waiting
from workflows.saga import Saga

__all__ = ["Breakages", "mend_node"]


class Breakages:
    """Of one scenario: what undoes them is its saga's."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga
        # By program: an outage goes on while the scenario's next steps are done.
        self._held: dict[str, workflow.ActivityHandle[OutageEnded]] = {}

    async def fail_node(self, fault: NodeFault) -> None:
        self._saga.will_undo((f"node {fault.node}", partial(mend_node, fault)))
        await workflow.execute_activity_method(Faults.fail_node, fault, **waiting(NODE_CHANGES_WITHIN))

    async def take_down(self, outage: Outage) -> None:
        """Returns when the program is away; it comes back by itself when the outage's time is over."""
        if (held := self._held.get(outage.program)) and not held.done():
            raise failure(
                FailureType.REFUSED,
                f"{outage.program} is away already. Write Then the {outage.program} answers again before this step.",
            )
        self._saga.will_undo((outage.program, partial(self._bring_back, outage)))
        held = workflow.start_activity_method(Outages.hold_down, outage, **holding(outage.lasts))
        self._held[outage.program] = held
        gone = workflow.start_activity_method(Outages.await_down, outage, **holding(outage.lasts))
        try:
            await workflow.wait([held, gone], return_when=asyncio.FIRST_COMPLETED)
            # Over, or failed, before anybody saw it away.
            await (gone if gone.done() else held)
        finally:
            gone.cancel()
            await workflow.wait([gone])

    async def await_back(self, outage: Outage) -> OutageEnded:
        if outage.program not in self._held:
            raise failure(FailureType.REFUSED, f"{outage.program} was not taken down before this step.")
        return await asyncio.shield(self._held[outage.program])

    async def _bring_back(self, outage: Outage) -> None:
        if held := self._held.get(outage.program):
            held.cancel()
            # Else it would take down what was just brought back.
            await asyncio.gather(held, return_exceptions=True)
        await workflow.execute_activity_method(Outages.bring_back, outage, **holding(outage.lasts))


async def mend_node(fault: NodeFault) -> None:
    await workflow.execute_activity_method(Faults.mend_node, fault, **CLEAN_UP)
