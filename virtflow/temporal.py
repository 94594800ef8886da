"""Talking to Temporal: where, with which payloads, and what its errors say."""

from temporalio.client import Client, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ActivityError, ApplicationError, ChildWorkflowError

from clusters.endpoints import Endpoints

__all__ = ["TASK_QUEUE", "connect", "root_cause"]

TASK_QUEUE = "virtflow"
LAYERS = (WorkflowFailureError, WorkflowUpdateFailedError, ChildWorkflowError, ActivityError)


async def connect(endpoints: Endpoints) -> Client:
    """A client whose payloads are typed: dataclasses, timedeltas and enums survive the way."""
    return await Client.connect(endpoints.temporal_address, data_converter=pydantic_data_converter)


def root_cause(error: BaseException) -> str:
    """The activity's own words, without the layers a workflow wraps them in."""
    while isinstance(error, LAYERS) and error.cause:
        error = error.cause
    return error.message if isinstance(error, ApplicationError) else str(error)
