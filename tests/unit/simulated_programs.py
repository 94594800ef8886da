"""The whole of virt-controller and virt-handler against a kube-apiserver that answers when it likes."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from hypothesis import strategies as st

from clusters.kubevirt.controller.lease import LeadershipLostError, Lease
from clusters.kubevirt.controller.process import Controller
from clusters.kubevirt.handler import Handler
from clusters.kubevirt.objects import controller_of
from tests.unit.simulated_apiserver import ApiServer, Line
from virtflow.kube import Object

INSTANCES, REPLICA_SETS = "virtualmachineinstances", "virtualmachineinstancereplicasets"
PAUSES = st.integers(min_value=0, max_value=400)
"""Turns of the event loop between what people do."""

DEATHS = st.sets(st.integers(1, 300), max_size=6)
LOSSES = st.sampled_from([0, 0.02, 0.2])


class Programs:
    """virt-controller, virt-handler and the nodes at work on a server."""

    def __init__(self, server: ApiServer, deaths: set[int], losses: float, seed: int) -> None:
        self._server = server
        self._deaths = deaths
        self._losses = losses
        self._random = random.Random(seed)
        self._passed = 0
        self.others = [asyncio.create_task(Handler(server).run()), asyncio.create_task(server.run_nodes())]
        self.start()

    def start(self) -> None:
        self._line = Line(self._server, self._on_pass, lambda: self._random.random() < self._losses)
        self.controller = asyncio.create_task(self._keep(self._line))

    async def _keep(self, line: Line) -> None:
        """As a supervisor does: enough lost answers lose the Lease, too."""
        while True:
            try:
                await Controller(line).run(Lease(line, "kubevirt", "virt-controller", "virt-controller-0"))
            except* LeadershipLostError:
                pass

    def crash(self) -> None:
        """As SIGKILL does: what is on its way to the server is dropped, and nothing follows."""
        self._line.is_cut = True
        self.controller.cancel()
        self.others.append(self.controller)
        self.start()

    def _on_pass(self) -> None:
        self._passed += 1
        if self._passed in self._deaths:
            self.crash()


@asynccontextmanager
async def running(
    server: ApiServer, deaths: set[int] | None = None, losses: float = 0, seed: int = 0
) -> AsyncIterator[Callable[[], None]]:
    """Everything at work within the block; what is yielded kills the controller and starts another one.

    `deaths` are moments to kill it at: how many requests of all its lives have been sent or answered. `losses` is
    which part of the answers to its writes gets lost.
    """
    programs = Programs(server, deaths or set(), losses, seed)
    try:
        yield programs.crash
        tasks = [*programs.others, programs.controller]
        assert [task for task in tasks if task.done() and not task.cancelled()] == []
    finally:
        tasks = [*programs.others, programs.controller]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def owners(objects: list[Object]) -> list[str]:
    return sorted((controller_of(obj) or {})["uid"] for obj in objects)


def fresh(obj: Object) -> Object:
    """As a user makes it: without what the controller adds."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in ("annotations", "finalizers")}
    return {**obj, "metadata": meta}
