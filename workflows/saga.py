"""Undoing what a scenario did, last thing first."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from temporalio.exceptions import ActivityError

__all__ = ["Saga"]


@dataclass(frozen=True)
class _Compensation:
    title: str
    undo: Callable[[], Awaitable[None]]


class Saga:
    """Compensations, registered before the thing they undo is made: a create whose answer got lost is undone too.

    So a compensation must be harmless when there is nothing to undo.
    """

    def __init__(self) -> None:
        self._compensations: list[_Compensation] = []

    def will_undo(self, title: str, undo: Callable[[], Awaitable[None]]) -> None:
        self._compensations.append(_Compensation(title, undo))

    async def undo(self) -> list[str]:
        """Run every compensation, whatever the others say; return what could not be undone, and why."""
        left: list[str] = []
        while self._compensations:
            compensation = self._compensations.pop()
            try:
                await compensation.undo()
            except ActivityError as error:
                left.append(f"{compensation.title}: {error.cause or error}")
        return left
