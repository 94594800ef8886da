"""What Locust runs: users that send requests to one URL, and the log of what came of it.

Told by the plan in the folder that VIRTFLOW_LOAD_FOLDER names; writes that folder's log.
"""

import json
import os
import time
import traceback
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import gevent
from locust import FastHttpUser, events, task

from load.results import LoadPlan, RunFiles
from load.shapes import RampHoldStop

FILES = RunFiles(Path(os.environ["VIRTFLOW_LOAD_FOLDER"]))
PLAN = LoadPlan.from_json(FILES.plan.read_text())
WINDOW = LONGEST_DELAY = 1.0


class Shape(RampHoldStop):
    plan = PLAN
    stop_file = FILES.stop


class Client(FastHttpUser):  # type: ignore[misc]
    """One user. Its place in the order of arrival spreads the users over a second and their reconnections
    over the requests, where chance would make two runs of one plan differ."""

    host = PLAN.url
    connection_timeout = network_timeout = 10.0
    started = 0

    def on_start(self) -> None:
        self.sent = Client.started
        Client.started += 1
        # Bounded, because a user that sleeps here holds up a stop.
        gevent.sleep(min(LONGEST_DELAY, 1 / PLAN.rate) * self.sent / PLAN.users)
        self.due = time.monotonic()

    def wait_time(self) -> float:
        # Not Locust's constant_throughput: it takes the time in on_start for the first task's, makes up for it
        # in the first wait, and so has all users fire at the same moment ever after.
        now = time.monotonic()
        self.due = max(now, self.due + 1 / PLAN.rate)
        return self.due - now

    @task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        self.sent += 1
        last = self.sent % PLAN.requests_per_connection == 0
        self.client.get(PLAN.url, headers={"Connection": "close"} if last else None)


class Recorder:
    """Gathers the requests of a window and writes it, every second and at the end."""

    def __init__(self) -> None:
        self._log = FILES.log.open("a")
        self._begun = self._since = time.monotonic()
        self._answered: Counter[int] = Counter()
        self._failures: Counter[str] = Counter()

    def request(self, response_time: float, exception: BaseException | None, response: Any = None, **_: Any) -> None:
        if exception is None:
            self._answered[round(response_time)] += 1
        elif response is not None and response.status_code:
            self._failures[f"HTTP {response.status_code}"] += 1
        else:
            self._failures[type(exception).__name__] += 1

    def error(self, exception: BaseException, tb: TracebackType, **_: Any) -> None:
        self._write({"error": "".join(traceback.format_exception(None, exception, tb))})

    def window(self, users: int) -> None:
        now = time.monotonic()
        self._write(
            {
                "time": time.time(),
                "elapsed": now - self._begun,
                "length": now - self._since,
                "users": users,
                "answered_ms": self._answered,
                "failures": self._failures,
            }
        )
        self._since = now
        self._answered, self._failures = Counter(), Counter()

    def every_second(self, runner: Any) -> None:
        while True:
            gevent.sleep(WINDOW)
            self.window(runner.user_count)

    def end(self, stopped: bool, started: int) -> None:
        self._write({"stopped": stopped, "started": started})

    def _write(self, line: dict[str, Any]) -> None:
        print(json.dumps(line), file=self._log, flush=True)


@events.init.add_listener  # type: ignore[untyped-decorator]
def record(environment: Any, runner: Any, **_: Any) -> None:
    recorder = Recorder()
    ticking = gevent.spawn(recorder.every_second, runner)

    def finish(**_: Any) -> None:
        ticking.kill()
        recorder.window(runner.user_count)
        recorder.end(FILES.stop.exists(), Client.started)

    environment.events.request.add_listener(recorder.request)
    environment.events.user_error.add_listener(recorder.error)
    environment.events.test_stop.add_listener(finish)
