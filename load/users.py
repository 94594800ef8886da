"""The pool of users: Locust's, each of which serves one load at a time and rests between loads.

All of them are there from the start and none is ever stopped. An idle one costs 8 KB and no time. Were they to come
and go with the loads, Locust would choose which ones go, which may be those of another load, and start none while
it waits for them.
"""

from typing import Any

import gevent
from gevent.queue import SimpleQueue
from locust import FastHttpUser, constant, task

from load.run import Run

__all__ = ["REQUEST_LIMIT", "Client", "count_request"]

REQUEST_LIMIT = 10.0


class Client(FastHttpUser):  # type: ignore[misc]
    """One user: its greenlet is with one load until that is over, so that it cannot serve two."""

    host = ""
    wait_time = constant(0)
    connection_timeout = network_timeout = REQUEST_LIMIT
    wanted: SimpleQueue[tuple[Run, int]] = SimpleQueue()
    """Which load lacks a user, and at which place."""

    @task  # type: ignore[untyped-decorator]
    def serve(self) -> None:
        run, index = self.wanted.get()
        plan = run.plan
        with run.served():
            for number in run.requests_due(index):
                # Locust's limits are for each packet, and a server that drips would hold up the load's end.
                with gevent.Timeout(REQUEST_LIMIT, TimeoutError):
                    self.client.get(plan.url, name="load", context={"run": run})
                # Spread over the users, who would otherwise all be reconnected in the same second.
                if (number + index) % plan.requests_per_connection == 0:
                    self.client.client.close()
        self.client.client.close()


def count_request(
    response_time: float, exception: BaseException | None, response: Any, context: dict[str, Run], **_: Any
) -> None:
    """A listener for Locust's `request`: the load of a request is the one it was sent for."""
    context["run"].count(response_time, exception, response.status_code)
