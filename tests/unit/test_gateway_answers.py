"""What every answer has, whatever was asked: an id, headers that keep it to whom it is for, and a Status for a no."""

import json
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from clusters.gateway.access_log import AccessLog
from clusters.gateway.docs import PAGES
from clusters.gateway.metrics import Metrics
from clusters.gateway.recorder import Recorder
from clusters.gateway.upstream import Upstream
from tests.unit.gateway_support import AUTH, VM, Setup, is_status
from virtflow.kube import Object

pytestmark = pytest.mark.anyio

ANSWERS = [
    ("GET", "/virtualmachines", AUTH, 200),
    ("GET", "/virtualmachines", {}, 401),
    ("DELETE", "/secrets/test", AUTH, 403),
    ("GET", "/secrets/Test", AUTH, 400),
    ("POST", "/secrets", AUTH, 415),
    ("GET", "/nodes", AUTH, 404),
    ("GET", "/", {}, 404),
    ("PATCH", "/pods/test", AUTH, 405),
    ("HEAD", "/pods", AUTH, 405),
    ("OPTIONS", "/pods", AUTH, 405),
    ("POST", "/metrics", AUTH, 405),
    ("HEAD", "/healthz", {}, 405),
    ("GET", "/healthz", {}, 200),
    ("GET", "/readyz", {}, 200),
    ("GET", "/metrics", {}, 200),
    ("GET", "/openapi.json", {}, 200),
]


@pytest.mark.parametrize(("method", "path", "headers", "code"), ANSWERS)
async def test_every_answer_has_an_id_and_is_for_nobody_else(
    gateway: Setup, method: str, path: str, headers: dict[str, str], code: int
) -> None:
    response = await gateway.http.request(method, path, headers={**headers, "X-Request-Id": "request-1"})
    assert response.status_code == code, response.text
    assert response.headers.items() >= {
        ("x-request-id", "request-1"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
    }
    if code >= 400:
        assert response.headers["content-type"] == "application/json"
        assert method == "HEAD" or response.json()["kind"] == "Status"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/" + "%01" * 10_000, {}),
        ("/pods/" + "%01" * 10_000, {}),
        ("/virtualmachines", {**VM, "apiVersion": "\U000e0001" * 250_000}),
        ("/virtualmachines", {**VM, "metadata": {"namespace": "\x01" * 170_000}}),
    ],
)
async def test_nobody_makes_long_lines_or_answers_of_what_they_send(gateway: Setup, path: str, sent: Object) -> None:
    content = json.dumps(sent, ensure_ascii=False).encode()
    headers = {**AUTH, "Content-Type": "application/json"}
    response = await gateway.http.request("POST" if sent else "GET", path, content=content, headers=headers)
    assert response.status_code in (400, 404)
    assert len(response.content) < 16 * 1024
    assert gateway.access_log.stat().st_size < 16 * 1024


@pytest.mark.parametrize("headers", [AUTH, {}])
@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/nodes", 404), ("GET", "/pods/a/log", 404), ("PATCH", "/pods/a", 405)]
)
async def test_what_is_not_offered_is_refused_whoever_asks(
    gateway: Setup, headers: dict[str, str], method: str, path: str, code: int
) -> None:
    response = await gateway.http.request(method, path, headers=headers)
    assert response.status_code == code
    assert not gateway.fake.requests


async def test_a_bug_is_a_500_that_tells_the_caller_nothing_but_the_id(
    gateway: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_down(*_: object, **__: object) -> None:
        raise ZeroDivisionError("because")

    monkeypatch.setattr(Upstream, "send", break_down)
    with pytest.raises(ZeroDivisionError):  # for the process's log
        await gateway.http.get("/virtualmachines", headers=AUTH)
    transport = httpx.ASGITransport(gateway.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="https://gateway") as http:
        response = await http.get("/virtualmachines", headers=AUTH)
    assert is_status(response, 500, "InternalError")
    assert "because" not in response.text
    assert response.headers["cache-control"] == "no-store"
    line = gateway.lines()[-1]
    assert (line["code"], line["verdict"], line["reason"]) == (
        500,
        "unavailable",
        "bug: ZeroDivisionError: because",
    )


async def test_a_bug_after_the_answer_began_gives_no_second_one(tmp_path: Path) -> None:
    async def begin_and_break_down(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError("because")

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    log = tmp_path / "access.log"
    with closing(AccessLog(log)) as access_log:
        recorder = Recorder(begin_and_break_down, access_log, Metrics(), unrecorded=())
        with pytest.raises(ZeroDivisionError):
            await recorder({"type": "http", "method": "GET", "path": "/pods", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert "bug: ZeroDivisionError: because" in log.read_text()


@pytest.mark.parametrize("code", [429, 500, 503, 504])
@pytest.mark.parametrize("header", [{"Retry-After": "7"}, {}])
async def test_when_the_apiserver_says_to_come_again_is_passed_on(
    gateway: Setup, code: int, header: dict[str, str]
) -> None:
    gateway.fake.code, gateway.fake.answer = code, {"kind": "Status", "code": code, "message": "come again"}
    gateway.fake.headers = header
    response = await gateway.http.get("/virtualmachines", headers=AUTH)
    assert (response.status_code, response.headers.get("retry-after")) == (code, header.get("Retry-After"))


async def test_the_page_loads_nothing_from_elsewhere(gateway: Setup) -> None:
    page = await gateway.http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy.pop("style-src") == "'self' 'unsafe-inline'"
    assert policy.pop("img-src") == "'self' data:"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert policy["default-src"] == "'none'"
    assert "://" not in page.text
    assert "<script>" not in page.text
    loaded = {part.split('"')[0] for part in page.text.replace("href=", "src=").split('src="')[1:]}
    assert loaded == PAGES.keys() - {"/docs"}
    for path in loaded:
        response = await gateway.http.get(path)
        assert (response.status_code, response.headers["x-content-type-options"]) == (200, "nosniff")
        assert response.headers["content-type"].startswith(PAGES[path])
    assert "://" not in (await gateway.http.get("/docs/start.js")).text


@pytest.mark.parametrize("path", ["/docs/", "/docs/index.html", "/docs/..%2fapp.py", "/docs/swagger-ui.js"])
async def test_no_other_file_is_served(gateway: Setup, path: str) -> None:
    assert is_status(await gateway.http.get(path), 404, "NotFound")


@pytest.mark.parametrize("wanted", ["bytes=abc", "bytes=99999999-", "bytes=0-0", "x=1-2"])
async def test_a_range_that_is_not_served_is_all_of_it(gateway: Setup, wanted: str) -> None:
    all_of_it = await gateway.http.get("/docs/swagger-ui.css")
    response = await gateway.http.get("/docs/swagger-ui.css", headers={"Range": wanted})
    assert (response.status_code, response.content) == (200, all_of_it.content)
