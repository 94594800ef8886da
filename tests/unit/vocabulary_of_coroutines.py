"""Steps that pytest-bdd would call and never await."""

from collections.abc import AsyncIterator

from pytest_bdd import given


@given("something that is awaited")
async def awaited() -> None:
    pass


@given("something that is iterated")
async def iterated() -> AsyncIterator[None]:
    yield
