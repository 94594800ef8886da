"""Talking to Temporal: where, and with which payloads."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import TypeVar

from temporalio.client import Client, RPCTimeoutOrCancelledError
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import CompositePayloadConverter, DataConverter
from temporalio.service import RPCError, RPCStatusCode

from clusters.endpoints import Endpoints
from virtflow.errors import InfrastructureError

__all__ = ["DATA_CONVERTER", "TASK_QUEUE", "answering", "connect", "patiently"]

TASK_QUEUE = "virtflow"

_PYDANTIC = PydanticPayloadConverter()


class _PayloadConverter(CompositePayloadConverter):
    """Pydantic's. Temporal makes one for each workflow, and each would work out anew how every type is decoded."""

    def __init__(self) -> None:
        super().__init__(*_PYDANTIC.converters.values())


DATA_CONVERTER = DataConverter(payload_converter_class=_PayloadConverter)
"""Payloads are typed: dataclasses, timedeltas and enums survive the way."""


AWAY = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
)
"""What a server that is killed, or is just starting, makes of a request."""
PATIENCE = timedelta(minutes=2)
LASTS_LONG = timedelta(seconds=30)
PAUSE = timedelta(milliseconds=500)

Answer = TypeVar("Answer")


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer, as soon as Temporal gives one: a server that was killed is back within seconds.

    The client's own retries end after ten seconds. Raises the last error after two minutes without an answer, and
    an RPCError that is an answer at once. `ask` must be harmless if an earlier try came through.
    """
    silent_since: float | None = None
    while True:
        asked = time.monotonic()
        try:
            return await ask()
        except (RPCError, RPCTimeoutOrCancelledError) as error:
            if isinstance(error, RPCError) and error.status not in AWAY:
                raise
            now = time.monotonic()
            # What lasted long had an answer, and waited for the next one when the server died.
            if silent_since is None or now - asked > LASTS_LONG.total_seconds():
                silent_since = now
            if now - silent_since > PATIENCE.total_seconds():
                raise
        await asyncio.sleep(PAUSE.total_seconds())


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Within this block it is infrastructure if Temporal gives no answer."""
    try:
        yield
    except (RPCError, RPCTimeoutOrCancelledError) as error:
        said = f"{error.status.name}: {error.message}" if isinstance(error, RPCError) else "it broke off"
        raise InfrastructureError(
            f"Temporal gave no answer ({said}). `virtflow status` shows whether it "
            f"runs, `virtflow logs temporal` what it says."
        ) from None


async def connect(endpoints: Endpoints) -> Client:
    """Raises InfrastructureError."""
    try:
        return await Client.connect(endpoints.temporal_address, data_converter=DATA_CONVERTER)
    except (RPCError, RuntimeError) as error:
        raise InfrastructureError(f"Temporal at {endpoints.temporal_address} cannot be reached: {error}") from error
