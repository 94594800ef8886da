"""An event loop on which hours pass in no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from clusters.kubevirt import handler
from clusters.kubevirt.controller import process
from tests.unit.virt_controller_support import NOW


class Impatient(selectors.DefaultSelector):
    """Lets the time pass in which another selector would wait."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is due any more"
        # Work takes time too: without it, a test of what never comes to rest would not end.
        self.passed += max(timeout, 0.005)
        return super().select(0)


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock does not wait: when nothing is ready, it jumps to what is due next."""

    def __init__(self) -> None:
        self._clock = Impatient()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.passed


def virtual_now() -> datetime:
    return NOW + timedelta(seconds=asyncio.get_running_loop().time())


def run_in_virtual_time(test: Coroutine[Any, Any, None]) -> None:
    """Minutes of virt-controller's in an instant. Servers in it want `virtual_now` for their clock."""
    clocks = (mock.patch.object(module, "now", virtual_now) for module in (process, handler))
    with ExitStack() as stack:
        for clock in clocks:
            stack.enter_context(clock)
        stack.enter_context(asyncio.Runner(loop_factory=VirtualTime)).run(test)
