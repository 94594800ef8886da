"""Arrows 12 to 15, out and in: load makes a replica set of virtual machines grow, its end makes it shrink."""

import asyncio
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.autoscaling import Autoscaling
    from activities.evidence import Evidence
    from activities.load import Load

from workflows.failures import halfway_at
from workflows.models import Autoscaled, AutoscaleOrder, LoadOutcome, LoadRun, ReplicasWait, ScaleState, SettleWait
from workflows.options import EVIDENCE, LOAD_TURN, QUICK, loading, waiting
from workflows.saga import stop_if_cancelled

__all__ = ["AutoscaleUnderLoad"]


@workflow.defn
class AutoscaleUnderLoad:
    """The state before is asked for too: a wait for the minimum would pass before anything had started."""

    @workflow.run
    async def run(self, order: AutoscaleOrder) -> Autoscaled:
        spec = await workflow.execute_activity_method(Autoscaling.read_autoscaler, order.target, **QUICK)
        stop_if_cancelled()
        at_minimum = ReplicasWait(order.target, spec.minimum, order.scaled_in_within)
        before = await workflow.execute_activity_method(
            Autoscaling.await_replicas, at_minimum, **waiting(at_minimum.within)
        )
        stop_if_cancelled()

        # 12-15, out
        settled, settled_at, outcome = await self._settle_under_load(order, before.replicas)

        with halfway_at(settled_at):
            # 12-15, in
            after = await workflow.execute_activity_method(
                Autoscaling.await_replicas, at_minimum, **waiting(at_minimum.within)
            )

            # and the proof of each decision
            decisions = await workflow.execute_local_activity_method(
                Evidence.observe_scale_decisions, order.target, **EVIDENCE
            )
        return Autoscaled(
            before,
            settled,
            after,
            spec.minimum,
            spec.maximum,
            spec.target_utilization,
            outcome,
            decisions,
            settled_at,
        )

    async def _settle_under_load(
        self, order: AutoscaleOrder, before: int
    ) -> tuple[ScaleState, datetime, LoadOutcome]:
        run = LoadRun(workflow.info().workflow_id, order.load)
        load = workflow.start_activity_method(Load.run, run, **loading(order.load.ramp + order.load.hold))
        settling = asyncio.create_task(self._settle(order, before, run))
        try:
            await workflow.wait([load, settling], return_when=asyncio.FIRST_COMPLETED)
            if not settling.done():
                await load
                raise ApplicationError(
                    f"The load ended after {order.load.ramp + order.load.hold} before the replica set had settled.",
                    type="LoadTooShort",
                    non_retryable=True,
                )
            settled, settled_at = await settling, workflow.now()
        finally:
            settling.cancel()
            await workflow.wait([settling])
            # Also after a failure: load that nobody waits for would fall on the next scenario.
            await workflow.execute_activity_method(Load.stop, run, **QUICK)
            outcome = await load
        return settled, settled_at, outcome

    async def _settle(self, order: AutoscaleOrder, before: int, run: LoadRun) -> ScaleState:
        # The load may have to wait for its turn, which is no time that the autoscaler took.
        await workflow.execute_activity_method(Load.await_begin, run, **waiting(LOAD_TURN))
        return await workflow.execute_activity_method(
            Autoscaling.await_settled,
            SettleWait(order.target, before, order.settled_within),
            **waiting(order.settled_within),
        )
