"""How many users there are at each moment: ramp, hold, stop.

Runs in Locust's process only.
"""

import math
from pathlib import Path

from locust import LoadTestShape

from load.results import LoadPlan

__all__ = ["RampHoldStop"]


class RampHoldStop(LoadTestShape):  # type: ignore[misc]
    """Users arrive evenly over the ramp and leave after the hold, or as soon as the stop file is there.

    The ramp goes in steps of Locust's second, not as one order to spawn everyone: Locust carries out an order
    to its end before it asks again, and would not see the stop file until the ramp is over.
    """

    abstract = True
    plan: LoadPlan
    stop_file: Path

    def tick(self) -> tuple[int, float] | None:
        elapsed, ramp = self.get_run_time(), self.plan.ramp.total_seconds()
        if self.stop_file.exists() or elapsed >= ramp + self.plan.hold.total_seconds():
            return None
        share = min(1.0, (elapsed + 1) / ramp) if ramp else 1.0
        return math.ceil(self.plan.users * share), self.plan.users
