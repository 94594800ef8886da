"""Talking to Temporal: where, and with which payloads."""

import contextlib
from collections.abc import Iterator

from temporalio.client import Client
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import CompositePayloadConverter, DataConverter
from temporalio.service import RPCError

from clusters.endpoints import Endpoints
from virtflow.errors import InfrastructureError

__all__ = ["DATA_CONVERTER", "TASK_QUEUE", "answering", "connect"]

TASK_QUEUE = "virtflow"

_PYDANTIC = PydanticPayloadConverter()


class _PayloadConverter(CompositePayloadConverter):
    """Pydantic's. Temporal makes one for each workflow, and each would work out anew how every type is decoded."""

    def __init__(self) -> None:
        super().__init__(*_PYDANTIC.converters.values())


DATA_CONVERTER = DataConverter(payload_converter_class=_PayloadConverter)
"""Payloads are typed: dataclasses, timedeltas and enums survive the way."""


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Within this block it is infrastructure if Temporal gives no answer."""
    try:
        yield
    except RPCError as error:
        raise InfrastructureError(
            f"Temporal gave no answer ({error.status.name}: {error.message}). `virtflow status` shows whether it "
            f"runs, `virtflow logs temporal` what it says."
        ) from None


async def connect(endpoints: Endpoints) -> Client:
    """Raises InfrastructureError."""
    try:
        return await Client.connect(endpoints.temporal_address, data_converter=DATA_CONVERTER)
    except (RPCError, RuntimeError) as error:
        raise InfrastructureError(f"Temporal at {endpoints.temporal_address} cannot be reached: {error}") from error
