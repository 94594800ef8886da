"""A run that agrees, for tests to change."""

from copy import deepcopy

from tests.conformance.compare import ABOUT, Account
from virtflow.kube import Object

__all__ = ["observed"]


def observed(account: Account, *, keep_sometimes: bool = True) -> Account:
    """A run that went as recorded: with all steps that a real one takes in some runs only, or with none."""

    def steps(recorded: list[str | dict[str, str]]) -> list[str]:
        told = [each if isinstance(each, str) else each["sometimes"] for each in recorded]
        return [step for step, each in zip(told, recorded, strict=True) if isinstance(each, str) or keep_sometimes]

    def expanded(entries: list[Object]) -> list[Object]:
        return [
            deepcopy({k: v for k, v in each.items() if k != "times"})
            for each in entries
            for _ in range(each.get("times", 1))
        ]

    course = [
        {name: part if name in ABOUT else steps(part) for name, part in history.items()}
        for history in expanded(account["course"])
    ]
    return {**deepcopy(account), "course": course, "objects": expanded(account["objects"])}
