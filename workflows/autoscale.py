"""Arrows 12 to 15, out and in: load makes a replica set of virtual machines grow, its end makes it shrink."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.autoscaling import Autoscaling
    from activities.evidence import Evidence
    from activities.load import Load

from workflows.failures import FailureType, failure, halfway_at
from workflows.models import (
    Autoscaled,
    AutoscaleOrder,
    LoadOrder,
    LoadOutcome,
    LoadRun,
    ReplicasWait,
    ScaleState,
    SettleWait,
)
from workflows.options import EVIDENCE, LOAD_TURN, QUICK, loading, waiting
from workflows.quota_models import Pressed, PressOrder, Strain, StuckWait
from workflows.saga import stop_if_cancelled

__all__ = ["AutoscaleUnderLoad", "PressAutoscaler"]

Reached = TypeVar("Reached")


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
        (settled, settled_at), outcome = await under_load(order.load, lambda: self._settle(order, before.replicas))

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

    async def _settle(self, order: AutoscaleOrder, before: int) -> tuple[ScaleState, datetime]:
        settled = await workflow.execute_activity_method(
            Autoscaling.await_settled,
            SettleWait(order.target, before, order.settled_within),
            **waiting(order.settled_within),
        )
        return settled, workflow.now()


@workflow.defn
class PressAutoscaler:
    """Load that a replica set cannot follow, until its autoscaler is stuck at the tenant's quota."""

    @workflow.run
    async def run(self, order: PressOrder) -> Pressed:
        strain, outcome = await under_load(order.load, lambda: self._await_stuck(order))
        return Pressed(strain, outcome)

    async def _await_stuck(self, order: PressOrder) -> Strain:
        return await workflow.execute_activity_method(
            Autoscaling.await_stuck, StuckWait(order.target, order.stuck_within), **waiting(order.stuck_within)
        )


async def under_load(load: LoadOrder, until: Callable[[], Awaitable[Reached]]) -> tuple[Reached, LoadOutcome]:
    """Put the load on until something is reached, whose time begins with the load's turn; then end the load."""
    run = LoadRun(workflow.info().workflow_id, load)
    ended = workflow.start_activity_method(Load.run, run, **loading(load.ramp + load.hold))

    async def reach() -> Reached:
        # The load may have to wait for its turn, which is no time that the autoscaler took.
        await workflow.execute_activity_method(Load.await_begin, run, **waiting(LOAD_TURN))
        if reaching.cancelling():
            # It was too quick to hear of it, and nothing will be reached any more.
            raise asyncio.CancelledError
        return await until()

    reaching = asyncio.create_task(reach())
    try:
        await workflow.wait([ended, reaching], return_when=asyncio.FIRST_COMPLETED)
        if not reaching.done():
            await ended
            raise failure(
                FailureType.LOAD_TOO_SHORT,
                f"The load ended after {load.ramp + load.hold} before the replica set had settled, or got stuck.",
            )
        reached = await reaching
    finally:
        reaching.cancel()
        await workflow.wait([reaching])
        # Also after a failure: load that nobody waits for would fall on the next scenario.
        await workflow.execute_activity_method(Load.stop, run, **QUICK)
        outcome = await ended
    return reached, outcome
