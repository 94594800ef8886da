"""Talking to Temporal: where, and with which payloads."""

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from clusters.endpoints import Endpoints
from virtflow.errors import InfrastructureError

__all__ = ["TASK_QUEUE", "connect"]

TASK_QUEUE = "virtflow"


async def connect(endpoints: Endpoints) -> Client:
    """A client whose payloads are typed: dataclasses, timedeltas and enums survive the way.

    Raises InfrastructureError.
    """
    try:
        return await Client.connect(endpoints.temporal_address, data_converter=pydantic_data_converter)
    except (RPCError, RuntimeError) as error:
        raise InfrastructureError(f"Temporal at {endpoints.temporal_address} cannot be reached: {error}") from error
