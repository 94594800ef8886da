"""Asking a Temporal that may be killed and come back meanwhile."""

from datetime import timedelta

import pytest
from temporalio.service import RPCError, RPCStatusCode

from virtflow import temporal
from virtflow.temporal import AWAY, patiently

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "PAUSE", timedelta())


class Server:
    """Fails as told, then answers."""

    def __init__(self, *failures: RPCStatusCode) -> None:
        self._failures = list(failures)

    async def ask(self) -> str:
        if self._failures:
            raise RPCError("away", self._failures.pop(0), b"")
        return "answer"


async def test_a_server_that_comes_back_answers() -> None:
    assert await patiently(Server(*AWAY, *AWAY).ask) == "answer"


async def test_a_refusal_is_an_answer() -> None:
    with pytest.raises(RPCError) as raised:
        await patiently(Server(RPCStatusCode.UNAVAILABLE, RPCStatusCode.NOT_FOUND).ask)
    assert raised.value.status is RPCStatusCode.NOT_FOUND


async def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "PATIENCE", timedelta())
    with pytest.raises(RPCError) as raised:
        await patiently(Server(*[RPCStatusCode.UNAVAILABLE] * 100).ask)
    assert raised.value.status is RPCStatusCode.UNAVAILABLE


async def test_what_lasted_long_had_an_answer_until_it_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal, "PATIENCE", timedelta())
    monkeypatch.setattr(temporal, "LASTS_LONG", timedelta(seconds=-1))
    assert await patiently(Server(*[RPCStatusCode.UNAVAILABLE] * 5).ask) == "answer"
