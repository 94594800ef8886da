"""A kube-apiserver that is away, slow or in no order: what callers are told, above all whether it may be done."""

import asyncio
from datetime import timedelta
from pathlib import Path

import aiohttp
import anyio
import pytest

from clusters.gateway import readiness
from tests.unit.gateway_support import AUTH, VM, Setup, is_status, lose_answers, running_gateway
from virtflow.kube.client import UnreadableAnswer

pytestmark = pytest.mark.anyio

MAYBE = "may have been carried out"


async def test_an_apiserver_that_is_away_is_503(gateway: Setup) -> None:
    await gateway.server.close()
    response = await gateway.http.get("/virtualmachines", headers=AUTH)
    assert is_status(response, 503, "ServiceUnavailable")
    assert gateway.lines()[0]["verdict"] == "unavailable"
    assert "Connect call failed" in gateway.lines()[0]["reason"]
    assert is_status(await gateway.http.get("/readyz"), 503, "ServiceUnavailable")
    assert (await gateway.http.get("/healthz")).status_code == 200
    assert len(gateway.lines()) == 1


async def test_an_answer_that_is_no_http_puts_no_token_into_the_log(gateway: Setup) -> None:
    gateway.fake.malformed = True
    assert is_status(await gateway.http.get("/virtualmachines", headers=AUTH), 503, "ServiceUnavailable")
    assert "ClientResponseError: 400" in gateway.lines()[0]["reason"]
    assert "the-gateways-own" not in gateway.access_log.read_text()


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (TimeoutError(), 504, "Timeout"),
        (aiohttp.ServerDisconnectedError(), 503, "ServiceUnavailable"),
        (UnreadableAnswer("it is no JSON"), 503, "ServiceUnavailable"),
    ],
)
@pytest.mark.parametrize(("method", "is_write"), [("POST", True), ("GET", False)])
async def test_a_write_whose_answer_is_lost_may_have_been_carried_out(
    gateway: Setup,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: int,
    reason: str,
    method: str,
    is_write: bool,
) -> None:
    lose_answers(monkeypatch, error)
    response = await gateway.http.request(method, "/virtualmachines", json=VM if is_write else None, headers=AUTH)
    assert is_status(response, code, reason)
    assert (MAYBE in response.json()["message"]) == is_write


async def test_a_write_that_found_no_connection_was_not_carried_out(
    gateway: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = aiohttp.client_reqrep.ConnectionKey("127.0.0.1", 1, True, True, None, None, None)
    lose_answers(monkeypatch, aiohttp.ClientConnectorError(where, OSError("refused")))
    response = await gateway.http.post("/virtualmachines", json=VM, headers=AUTH)
    assert is_status(response, 503, "ServiceUnavailable")
    assert gateway.lines()[-1]["verdict"] == "allowed"
    assert MAYBE not in response.json()["message"]


async def test_what_was_not_checked_in_time_was_not_sent(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, timeout=timedelta(milliseconds=300)) as gateway:
        gateway.fake.open.clear()
        response = await gateway.http.post("/virtualmachines", json=VM, headers=AUTH)
        gateway.fake.open.set()
    assert is_status(response, 504, "Timeout")
    assert "Nothing was written" in response.json()["message"]
    assert "did not answer" not in response.json()["message"]


async def test_a_gateway_without_rights_says_that_it_is_not_the_callers_fault(gateway: Setup) -> None:
    gateway.fake.review_code = 403
    response = await gateway.http.get("/virtualmachines", headers=AUTH)
    assert is_status(response, 503, "ServiceUnavailable")
    assert "TokenReview" in response.json()["message"]
    assert "as the test wants" in gateway.lines()[0]["reason"]


async def test_ready_is_whether_the_apiserver_answers(gateway: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LIFETIME", timedelta(0))
    assert (await gateway.http.get("/readyz")).status_code == 200
    gateway.fake.code = 500
    assert is_status(await gateway.http.get("/readyz"), 503, "ServiceUnavailable")
    assert not gateway.lines()


@pytest.mark.parametrize("is_ready", [True, False])
async def test_however_many_ask_whether_it_is_ready_the_apiserver_is_asked_once(
    gateway: Setup, monkeypatch: pytest.MonkeyPatch, is_ready: bool
) -> None:
    monkeypatch.setattr(readiness, "LIFETIME", timedelta(hours=1))
    monkeypatch.setattr(readiness, "TIMEOUT", timedelta(seconds=30))
    if not is_ready:
        gateway.fake.malformed = True
    responses = await asyncio.gather(*(gateway.http.get("/readyz") for _ in range(50)))
    responses.append(await gateway.http.get("/readyz"))
    assert {response.status_code for response in responses} == {200 if is_ready else 503}
    assert len({response.headers["x-request-id"] for response in responses}) == len(responses)
    assert len(gateway.fake.requests) == 1


async def test_an_apiserver_that_does_not_say_in_time_whether_it_is_ready_is_504(
    gateway: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answers(monkeypatch, TimeoutError())
    response = await gateway.http.get("/readyz")
    assert is_status(response, 504, "Timeout")
    assert "ready" in response.json()["message"]


async def test_who_leaves_takes_nobodys_answer_with_them(gateway: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "TIMEOUT", timedelta(seconds=30))
    gateway.fake.open.clear()
    leaving = asyncio.create_task(gateway.http.get("/readyz"))
    with anyio.fail_after(30):
        while not gateway.fake.requests:  # noqa: ASYNC110 - of another's state
            await asyncio.sleep(0.01)
    staying = asyncio.create_task(gateway.http.get("/readyz"))
    leaving.cancel()
    assert await asyncio.wait([leaving], timeout=30) == ({leaving}, set())
    gateway.fake.open.set()
    assert (await staying).status_code == 200
    assert len(gateway.fake.requests) == 1
