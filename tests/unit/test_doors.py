"""A door is asked again when it is away or busy, and of its answer nothing is kept that is nobody's business."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from activities.doors import LONGEST_PAUSE, REQUEST_LIMIT, TRIES, DoorReply, Doors
from clusters.local import pki
from virtflow.access.requests import DoorHttp
from workflows.access_models import Door
from workflows.options import ASKED_WITHIN

pytestmark = pytest.mark.anyio

GET = DoorHttp("GET", "/pods", {"namespace": "a"})
REFUSAL = {"kind": "Status", "reason": "Forbidden", "message": "no"}


class Server:
    """Gives its answers one by one, the last for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = [(200, {}, {})]
        self.requests: list[web.BaseRequest] = []

    async def handle(self, request: web.BaseRequest) -> web.Response:
        await request.read()
        self.requests.append(request)
        code, body, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(body, str):
            return web.Response(text=body, status=code, headers=headers)
        return web.json_response(body, status=code, headers=headers)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of being waited for, they are noted."""
    noted: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        noted.append(seconds)
        await sleep(0)

    monkeypatch.setattr("activities.doors.asyncio.sleep", note)
    return noted


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    played = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", played.handle)
    async with TestServer(app) as running:
        yield played, str(running.make_url("")).rstrip("/")


async def ask(url: str, folder: Path, door: Door, request: DoorHttp = GET) -> DoorReply:
    pki.authority(folder, "ca")
    kube = SimpleNamespace(server=url, trust=lambda: True)
    endpoints = SimpleNamespace(gateway_url=url, ca_cert=folder / "ca.crt")
    async with aiohttp.ClientSession() as http:
        return await Doors(cast(Any, kube), http, cast(Any, endpoints)).ask(door, request, "the-token", "the-id")


@pytest.mark.parametrize(("door", "header"), [(Door.GATEWAY, "X-Request-Id"), (Door.KUBE_APISERVER, "Audit-ID")])
async def test_the_token_and_the_id_go_with_a_request(
    server: tuple[Server, str], tmp_path: Path, door: Door, header: str
) -> None:
    played, url = server
    request = DoorHttp("PATCH", "/pods/x", {"dryRun": "All"}, {"a": 1}, "application/merge-patch+json")
    assert await ask(url, tmp_path, door, request) == DoorReply(200)
    (heard,) = played.requests
    assert (heard.method, heard.path, dict(heard.query)) == ("PATCH", "/pods/x", {"dryRun": "All"})
    assert heard.headers["Authorization"] == "Bearer the-token"
    assert heard.headers[header] == "the-id"
    assert heard.headers["Content-Type"] == "application/merge-patch+json"


async def test_what_is_read_is_not_kept_and_a_refusal_is(server: tuple[Server, str], tmp_path: Path) -> None:
    played, url = server
    played.answers = [(200, {"data": {"password": "secret"}}, {})]
    assert await ask(url, tmp_path, Door.GATEWAY) == DoorReply(200, {})
    played.answers = [(403, REFUSAL, {})]
    refused = await ask(url, tmp_path, Door.GATEWAY)
    assert (refused.code, refused.reason, refused.message) == (403, "Forbidden", "no")


async def test_who_is_busy_is_asked_again_when_it_says(
    server: tuple[Server, str], tmp_path: Path, pauses: list[float]
) -> None:
    played, url = server
    played.answers = [(429, REFUSAL, {"Retry-After": "3"}), (503, "not ready", {}), (403, REFUSAL, {})]
    assert (await ask(url, tmp_path, Door.GATEWAY)).code == 403
    assert pauses[0] == 3
    assert len(pauses) == 2


async def test_who_stays_away_has_no_answer(server: tuple[Server, str], tmp_path: Path, pauses: list[float]) -> None:
    played, url = server
    played.answers = [(503, ["no object"], {})]
    assert (await ask(url, tmp_path, Door.GATEWAY)).code == 503
    assert len(played.requests) == TRIES
    reply = await ask("http://127.0.0.1:1", tmp_path, Door.GATEWAY)
    assert reply.code == 0
    assert "the-token" not in reply.message


def test_all_tries_fit_into_the_time_there_is() -> None:
    assert REQUEST_LIMIT.total is not None
    tries = TRIES * REQUEST_LIMIT.total + (TRIES - 1) * LONGEST_PAUSE.total_seconds()
    assert tries < ASKED_WITHIN.total_seconds()
