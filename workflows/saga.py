"""Undoing what a workflow did, last thing first, whatever else happens: a cancellation above all.

A cancellation reaches a workflow in the one place where it waits. Three things are easily lost there: a child
that has only been asked for, an activity that finishes all the same, and the undoing itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.types import MethodAsyncSingleParam

from workflows.failures import failure, type_of, words_of
from workflows.options import AT_ONCE

__all__ = ["Saga", "at_once", "run_child", "stop_if_cancelled", "uninterrupted"]

Workflow = TypeVar("Workflow")
Order = TypeVar("Order")
Result = TypeVar("Result")


Compensation = tuple[str, Callable[[], Awaitable[None]]]
"""What it is about, for who reads that it could not be undone, and the undoing."""


class Saga:
    """Compensations, registered before the thing they undo is made: a create whose answer got lost is undone too.

    So a compensation must be harmless when there is nothing to undo.
    """

    def __init__(self) -> None:
        self._compensations: list[list[Compensation]] = []

    def will_undo(self, *compensations: Compensation) -> None:
        """Several are of things that were made together: they are undone together, too."""
        self._compensations.append(list(compensations))

    async def undo(self) -> list[str]:
        """Run every compensation, whatever the others say; return what could not be undone, and why."""
        left: list[str] = []
        while self._compensations:
            together = self._compensations.pop()
            # So many at a time: each has its limit, which must not run out while others have the cluster's time.
            ends = await at_once([partial(_undone, title, undo) for title, undo in together], AT_ONCE)
            left += [end for end in ends if end]
        return left


async def _undone(title: str, undo: Callable[[], Awaitable[None]]) -> str:
    try:
        await undo()
    except ActivityError as error:
        return f"{title}: {words_of(error)}"
    return ""


async def at_once(acts: Sequence[Callable[[], Awaitable[Result]]], most: int) -> list[Result]:
    """The results of all, of which so many act at a time. Returns or raises when none acts any more.

    One that fails does not keep the others from their end: what is half made is harder to undo.
    """
    room = asyncio.Semaphore(most)

    async def in_turn(act: Callable[[], Awaitable[Result]]) -> Result:
        async with room:
            return await act()

    # With exceptions as results: else a cancellation, or a failure, would be raised while others still act.
    ends = await asyncio.gather(*(in_turn(act) for act in acts), return_exceptions=True)
    failures = [end for end in ends if isinstance(end, BaseException)]
    if not failures:
        return [end for end in ends if not isinstance(end, BaseException)]
    if len(ends) == 1:
        raise failures[0]
    raise failure(
        type_of(failures[0]), f"{len(failures)} of {len(ends)} failed. The first: {words_of(failures[0])}"
    ) from failures[0]


async def uninterrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """The work's result; cancelling whoever waits for it, once or again, neither ends the work nor the waiting."""
    # A task of its own: a cancellation goes to the one that waits.
    task = asyncio.create_task(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            workflow.logger.warning("cancelled during what must not be interrupted, which goes on")
    return task.result()


async def run_child(run: MethodAsyncSingleParam[Workflow, Order, Result], order: Order, *, name: str) -> Result:
    """Run a child whose id is `name` below this workflow's, to its end; cancelled, cancel it and wait for its end.

    Cancelled before the server has started the child, the SDK would leave at once, and the child would begin to
    make things beside their undoing.
    """
    child_id = f"{workflow.info().workflow_id}/{name}"
    starting = asyncio.create_task(workflow.start_child_workflow(run, order, id=child_id))
    cancelled = False
    while not starting.done():
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            cancelled = True
    child = starting.result()
    if cancelled:
        child.cancel()
    return await child


def stop_if_cancelled() -> None:
    """Raise if this workflow was cancelled while an activity ran that finished all the same.

    One that is too quick to hear of its cancellation returns its result as if there had been none, and the
    workflow would go on to the next step.
    """
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError
