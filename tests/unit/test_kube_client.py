import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.unit.kube_support import TOKEN, client_of
from virtflow.kube import NO_ANSWER, KubeClient, KubeError
from virtflow.kube.client import UnreadableAnswer, proxy_of
from virtflow.kube.resources import CONTROLLER_REVISIONS, NAMESPACES, PODS, VMS, Object

pytestmark = pytest.mark.anyio

NOT_FOUND = {
    "kind": "Status",
    "code": 404,
    "reason": "NotFound",
    "message": 'pods "x" not found',
    "details": {"a": 1},
}


@dataclass
class Apiserver:
    """Answers each request with `code` and `body`, and keeps what it was asked."""

    code: int = 200
    body: bytes = b"{}"
    headers: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)
    silent: bool = False

    def say(self, code: int, body: object, *headers: tuple[str, str]) -> None:
        self.code, self.headers = code, list(headers)
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.read()
        self.asked.append(
            (request.method, request.path_qs, json.loads(text) if text else None, dict(request.headers))
        )
        if self.silent:
            await asyncio.Event().wait()
        answer = web.Response(status=self.code, body=self.body)
        for name, value in self.headers:
            answer.headers.add(name, value)
        return answer


@pytest.fixture
def server() -> Apiserver:
    return Apiserver()


@pytest.fixture
async def kube(server: Apiserver, tmp_path: Path) -> AsyncIterator[KubeClient]:
    async with client_of(server.handle, tmp_path) as client:
        yield client


async def test_a_refusal_carries_the_whole_status(kube: KubeClient, server: Apiserver) -> None:
    server.say(404, NOT_FOUND)
    with pytest.raises(KubeError) as caught:
        await kube.get(PODS, "x", "ns")
    error = caught.value
    assert (error.code, error.reason, error.message) == (404, "NotFound", 'pods "x" not found')
    assert error.status == NOT_FOUND
    assert str(error) == 'GET /api/v1/namespaces/ns/pods/x: 404 NotFound: pods "x" not found'


async def test_send_returns_a_refusal_instead(kube: KubeClient, server: Apiserver) -> None:
    server.say(404, NOT_FOUND)
    answer = await kube.send("GET", "/api/v1/namespaces/ns/pods/x")
    assert (answer.code, answer.body) == (404, NOT_FOUND)


@pytest.mark.parametrize("text", [b"apiserver not ready\n", b"", b"\xff\xfe", b"{"])
async def test_an_answer_that_is_no_json_is_still_an_error_one_can_read(
    kube: KubeClient, server: Apiserver, text: bytes
) -> None:
    server.say(503, text)
    with pytest.raises(KubeError) as caught:
        await kube.request("GET", "/readyz")
    assert caught.value.code == 503
    assert caught.value.message == text.decode(errors="replace").strip()
    assert str(caught.value).startswith("GET /readyz: 503")


@pytest.mark.parametrize("text", [b"<html>", b"[" * 2000 + b"]" * 2000])
async def test_what_cannot_be_read_is_no_answer(kube: KubeClient, server: Apiserver, text: bytes) -> None:
    server.say(200, text)
    with pytest.raises(NO_ANSWER) as caught:
        await kube.send("GET", "/api/v1/pods")
    assert isinstance(caught.value, UnreadableAnswer)
    assert str(caught.value).startswith("The answer to GET /api/v1/pods cannot be read as JSON: ")


async def test_a_health_check_answers_in_plain_text(tmp_path: Path) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async with client_of(handle, tmp_path) as kube:
        assert (await kube.send("GET", "/readyz")).body["message"] == "ok"


@pytest.mark.parametrize(("value", "why"), [("\ud800", "surrogates"), (2**64, "64-bit"), ({1: 2}, "must be str")])
async def test_what_json_cannot_say_is_not_sent(kube: KubeClient, server: Apiserver, value: object, why: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be written as JSON: .*{why}"):
        await kube.send("POST", "/api/v1/pods", body={"a": value})
    with pytest.raises(ValueError, match=f"cannot be written as JSON: .*{why}"):
        await kube.create(CONTROLLER_REVISIONS, {"data": value}, "ns")
    assert not server.asked


async def test_warnings_come_beside_the_answer(kube: KubeClient, server: Apiserver) -> None:
    warnings = ['299 - "spec.running is deprecated"', '299 - "unknown field \\"spec.x\\""']
    server.say(201, {"kind": "VirtualMachine"}, *(("Warning", warning) for warning in warnings))
    answer = await kube.send("POST", VMS.path("ns"), body={})
    assert (answer.code, answer.body, answer.warnings) == (201, {"kind": "VirtualMachine"}, warnings)
    server.say(200, {})
    assert (await kube.send("GET", VMS.path("ns"))).warnings == []


async def test_each_request_says_who_it_is(kube: KubeClient, server: Apiserver) -> None:
    await kube.get(NAMESPACES, "ns")
    [(method, path, body, headers)] = server.asked
    assert (method, path, body) == ("GET", "/api/v1/namespaces/ns", None)
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers["User-Agent"] == "test-agent"
    assert headers["Accept"] == "application/json"


async def test_headers_of_a_request_go_along(kube: KubeClient, server: Apiserver) -> None:
    await kube.send("POST", VMS.path("ns"), body={}, headers={"Impersonate-User": "jane"}, query={"dryRun": "All"})
    [(_, path, _, headers)] = server.asked
    assert headers["Impersonate-User"] == "jane"
    assert headers["Content-Type"] == "application/json"
    assert path == "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines?dryRun=All"


async def test_list_returns_items_and_escapes_its_selector(kube: KubeClient, server: Apiserver) -> None:
    server.say(200, {"items": [{"metadata": {"name": "a"}}]})
    assert await kube.list(PODS, "ns", selector="app in (a, b)") == [{"metadata": {"name": "a"}}]
    assert server.asked[0][1].replace("%28", "(").replace("%29", ")").replace("%2C", ",") == (
        "/api/v1/namespaces/ns/pods?labelSelector=app+in+(a,+b)"
    )


async def test_create_fills_in_kind_and_version(kube: KubeClient, server: Apiserver) -> None:
    await kube.create(VMS, {"metadata": {"name": "a"}}, "ns")
    assert server.asked[0][:3] == (
        "POST",
        "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines",
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "a"}},
    )


async def test_apply_is_server_side(kube: KubeClient, server: Apiserver) -> None:
    await kube.apply(NAMESPACES, {"metadata": {"name": "ns"}})
    [(method, path, body, headers)] = server.asked
    assert (method, path) == ("PATCH", "/api/v1/namespaces/ns?fieldManager=virtflow&force=true")
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert body == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}


@pytest.mark.parametrize(
    ("kind", "patch"),
    [("merge", {"spec": None}), ("strategic", {"spec": {}}), ("json", [{"op": "remove", "path": "/a"}])],
)
async def test_patch_says_which_kind_it_is(kube: KubeClient, server: Apiserver, kind: Any, patch: object) -> None:
    await kube.patch(PODS, "a", patch, "ns", kind=kind, subresource="status")
    [(method, path, body, headers)] = server.asked
    assert (method, path, body) == ("PATCH", "/api/v1/namespaces/ns/pods/a/status", patch)
    name = "strategic-merge" if kind == "strategic" else "merge" if kind == "merge" else "json"
    assert headers["Content-Type"] == f"application/{name}-patch+json"


async def test_replace_puts_the_object_where_it_came_from(kube: KubeClient, server: Apiserver) -> None:
    pod: Object = {"metadata": {"name": "a", "namespace": "ns", "resourceVersion": "7"}}
    await kube.replace(PODS, pod, subresource="status")
    assert server.asked[0][:3] == ("PUT", "/api/v1/namespaces/ns/pods/a/status", pod)


async def test_delete_names_the_very_object_and_is_content_if_it_is_gone(kube: KubeClient, server: Apiserver) -> None:
    server.say(404, NOT_FOUND)
    await kube.delete(PODS, "a", "ns", uid="u-1", propagation="Background")
    method, path, body, _ = server.asked[0]
    assert (method, path) == ("DELETE", "/api/v1/namespaces/ns/pods/a")
    assert (body["preconditions"], body["propagationPolicy"]) == ({"uid": "u-1"}, "Background")
    server.say(409, {"reason": "Conflict", "message": "the UID in the precondition does not match"})
    with pytest.raises(KubeError, match="409 Conflict"):
        await kube.delete(PODS, "a", "ns", uid="u-2")


async def test_a_token_is_asked_for_with_lifetime_and_audience(kube: KubeClient, server: Apiserver) -> None:
    server.say(201, {"status": {"token": "abc"}})
    assert await kube.create_token("ns", "sa", timedelta(minutes=10), audiences=["gateway"]) == "abc"
    assert await kube.create_token("ns", "sa", timedelta(minutes=10)) == "abc"
    [(_, path, first, _), (_, _, second, _)] = server.asked
    assert path == "/api/v1/namespaces/ns/serviceaccounts/sa/token"
    assert first["spec"] == {"expirationSeconds": 600, "audiences": ["gateway"]}
    assert second["spec"] == {"expirationSeconds": 600}


async def test_no_answer_in_time_is_a_timeout(kube: KubeClient, server: Apiserver) -> None:
    server.silent = True
    with pytest.raises(TimeoutError):
        await kube.send("GET", "/api", timeout=timedelta(milliseconds=50))
    server.silent = False
    assert (await kube.send("GET", "/api")).code == 200


async def test_many_requests_at_once_do_not_wait_for_each_other(tmp_path: Path) -> None:
    together = asyncio.Barrier(150)

    async def handle(_: web.Request) -> web.Response:
        await together.wait()
        return web.json_response({})

    async with client_of(handle, tmp_path) as kube, asyncio.timeout(20):
        answers = await asyncio.gather(*(kube.send("GET", f"/api/{number}") for number in range(together.parties)))
    assert {answer.code for answer in answers} == {200}


async def test_a_watch_is_its_lines_however_they_are_cut(tmp_path: Path) -> None:
    # One line far above what aiohttp reads at once, and a last one that the server never finished.
    events = [{"type": "ADDED", "object": {"data": "x" * size}} for size in (1, 600_000, 0)]
    text = b"".join(json.dumps(event).encode() + b"\n" for event in events) + b'{"type": "MOD'

    async def handle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for start in range(0, len(text), 50_001):
            await answer.write(text[start : start + 50_001])
        return answer

    async with client_of(handle, tmp_path) as kube:
        found = [event async for event in kube.stream("/api/v1/pods", {"watch": "true"}, timedelta(seconds=20))]
    assert found == events


async def test_an_event_that_cannot_be_read_ends_the_watch(kube: KubeClient, server: Apiserver) -> None:
    server.say(200, b'{"type": "ADDED", "object": ' + b"[" * 2000 + b"]" * 2000 + b"}\n")
    with pytest.raises(UnreadableAnswer, match="An event of /api/v1/pods cannot be read as JSON: "):
        [event async for event in kube.stream("/api/v1/pods", {}, timedelta(seconds=5))]


async def test_a_refused_watch_is_an_error_with_its_status(kube: KubeClient, server: Apiserver) -> None:
    server.say(403, {"reason": "Forbidden", "message": "no"})
    with pytest.raises(KubeError, match="WATCH /api/v1/pods: 403 Forbidden: no"):
        [event async for event in kube.stream("/api/v1/pods", {}, timedelta(seconds=5))]
    server.say(502, b"<html>")
    with pytest.raises(KubeError, match="502 : <html>"):
        [event async for event in kube.stream("/api/v1/pods", {}, timedelta(seconds=5))]


async def test_a_server_that_is_not_there_is_a_client_error(tmp_path: Path) -> None:
    async def never(_: web.Request) -> web.Response:
        raise AssertionError

    async with client_of(never, tmp_path):
        pass
    async with await KubeClient.connect(tmp_path / "kubeconfig.yaml") as kube:
        with pytest.raises(aiohttp.ClientError):
            await kube.send("GET", "/api")


def test_the_environments_proxy_is_for_servers_it_does_not_except(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,.inner.example")
    monkeypatch.setenv("no_proxy", "127.0.0.1,.inner.example")
    assert proxy_of("https://cluster.example:6443") == "http://proxy.example:3128"
    assert proxy_of("https://127.0.0.1:6443") is None
    assert proxy_of("https://api.inner.example") is None


@pytest.mark.parametrize("excepted", ["::1", "[::1]", "[::1]:6443"])
def test_an_address_of_ipv6_is_excepted_with_and_without_brackets(
    monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", excepted)
    assert proxy_of("https://[::1]:6443") is None
    assert proxy_of("https://[::2]:6443") == "http://proxy.example:3128"
