"""Talking to Temporal: where, with which payloads, and what its errors say."""

from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError
from temporalio.service import RPCError

from clusters.endpoints import Endpoints
from virtflow.errors import InfrastructureError

__all__ = ["TASK_QUEUE", "connect", "root_cause", "words_of"]

TASK_QUEUE = "virtflow"
LAYERS = (WorkflowFailureError, WorkflowUpdateFailedError, ChildWorkflowError, ActivityError)


async def connect(endpoints: Endpoints) -> Client:
    """A client whose payloads are typed: dataclasses, timedeltas and enums survive the way.

    Raises InfrastructureError.
    """
    try:
        return await Client.connect(endpoints.temporal_address, data_converter=pydantic_data_converter)
    except (RPCError, RuntimeError) as error:
        raise InfrastructureError(f"Temporal at {endpoints.temporal_address} cannot be reached: {error}") from error


def root_cause(error: BaseException) -> BaseException:
    """The activity's own error, without the layers a workflow wraps it in."""
    while isinstance(error, LAYERS) and error.cause:
        error = error.cause
    return error


def words_of(error: BaseException) -> str:
    """What an activity's error says, without its type."""
    return error.message if isinstance(error, ApplicationError) else str(error)
