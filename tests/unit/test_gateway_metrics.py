"""The figures at /metrics: that they are right, and that nobody can put a word of their own into them."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from clusters.gateway.offered import ENDPOINTS
from tests.unit.gateway_support import AUTH, VM, Setup, lose_answers

pytestmark = pytest.mark.anyio

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def samples(gateway: Setup) -> list[Sample]:
    response = await gateway.http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]


async def figures(gateway: Setup) -> Figures:
    return {(each.name, frozenset(each.labels.items())): each.value for each in await samples(gateway)}


def figure(figures: Figures, name: str, **labels: str) -> float:
    return figures.get((f"gateway_{name}", frozenset(labels.items())), 0)


async def test_requests_are_counted_by_what_was_asked_and_how_it_ended(gateway: Setup) -> None:
    for _ in range(3):
        await gateway.http.get("/virtualmachines", headers=AUTH)
    await gateway.http.put("/virtualmachines/test-vm/start", headers=AUTH)
    await gateway.http.delete("/secrets/test", headers=AUTH)
    await gateway.http.get("/pods")
    gateway.fake.code = 422
    await gateway.http.post("/virtualmachines", headers=AUTH, json=VM)

    found = await figures(gateway)
    ended = {
        ("virtualmachines", "list", "200", "allowed"): 3,
        ("virtualmachines/start", "update", "200", "allowed"): 1,
        ("secrets", "delete", "403", "denied"): 1,
        ("pods", "list", "401", "unauthenticated"): 1,
        ("virtualmachines", "create", "422", "allowed"): 1,
    }
    for (resource, verb, code, verdict), count in ended.items():
        labels = {"resource": resource, "verb": verb, "code": code, "verdict": verdict}
        assert figure(found, "requests_total", **labels) == count, labels
    assert sum(value for (name, _), value in found.items() if name == "gateway_requests_total") == sum(ended.values())
    assert figure(found, "request_duration_seconds_count", resource="virtualmachines", verb="list") == 3
    assert figure(found, "request_duration_seconds_bucket", resource="pods", verb="list", le="+Inf") == 1
    assert figure(found, "request_duration_seconds_sum", resource="virtualmachines", verb="list") > 0


async def test_what_is_asked_of_the_apiserver_is_counted_and_what_need_not_be(gateway: Setup) -> None:
    for _ in range(3):
        await gateway.http.get("/virtualmachines", headers=AUTH)
    await gateway.http.get("/readyz")
    found = await figures(gateway)

    def asked(purpose: str, code: str) -> float:
        return figure(found, "apiserver_request_duration_seconds_count", purpose=purpose, code=code)

    assert (asked("tokenreview", "201"), asked("subjectaccessreview", "201")) == (1, 1)
    assert (asked("request", "200"), asked("readiness", "200")) == (3, 1)
    assert figure(found, "reviews_from_cache_total", review="tokenreview") == 2
    assert figure(found, "reviews_from_cache_total", review="subjectaccessreview") == 2


async def test_an_apiserver_that_does_not_answer_is_counted_as_none(
    gateway: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answers(monkeypatch, TimeoutError())
    assert (await gateway.http.get("/virtualmachines", headers=AUTH)).status_code == 504
    found = await figures(gateway)
    assert figure(found, "apiserver_request_duration_seconds_count", purpose="request", code="none") == 1
    assert figure(found, "requests_in_flight") == 0


async def test_what_is_under_way_is_counted(gateway: Setup) -> None:
    seen = []

    async def body() -> AsyncIterator[bytes]:
        seen.append(figure(await figures(gateway), "requests_in_flight"))
        yield b"{}"

    headers = {**AUTH, "Content-Type": "application/json"}
    response = await gateway.http.post("/virtualmachines", headers=headers, content=body())
    assert response.status_code == 400
    assert seen == [1]


async def test_looking_at_the_figures_does_not_change_them(gateway: Setup) -> None:
    before = await figures(gateway)
    for path in ("/metrics", "/healthz", "/openapi.json", "/docs", "/docs/start.js"):
        assert (await gateway.http.get(path)).status_code == 200
    assert await figures(gateway) == before


WORDS = {
    "resource": {
        "none",
        *(f"{each.resource.plural}/{each.subresource}".rstrip("/") for each in ENDPOINTS),
    },
    "verb": {"none", "list", "create", "get", "update", "delete"},
    "code": {"none", "200", "201", "400", "401", "403", "404", "405", "413", "415"},
    "verdict": {"allowed", "denied", "unauthenticated", "too many", "bad request", "unavailable"},
    "purpose": {"tokenreview", "subjectaccessreview", "request", "readiness"},
    "review": {"tokenreview", "subjectaccessreview"},
}
PATHS = st.text(max_size=30) | st.sampled_from(
    ["/virtualmachines/x/y", "/nodes", "/metrics/x", "/docs/../secrets", "/secrets/a/start", "/VIRTUALMACHINES"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "X-ODD", "get"]),
    path=PATHS,
    token=st.sampled_from(["good", "human", "the-token-nobody-knows"]),
)
async def test_no_caller_adds_a_word_to_the_figures(gateway: Setup, method: str, path: str, token: str) -> None:
    url = "/" + quote(path.lstrip("/"))
    await gateway.http.request(method, url, headers={"Authorization": f"Bearer {token}", "X-Request-Id": "request-1"})
    for sample in await samples(gateway):
        for label, value in sample.labels.items():
            assert label == "le" or value in WORDS[label], sample


async def test_no_tenant_is_named(gateway: Setup) -> None:
    await gateway.http.get("/virtualmachines/the-name?namespace=the-namespace", headers=AUTH)
    text = (await gateway.http.get("/metrics")).text
    assert [word for word in ("tenant", "the-name", "good") if word in text] == []
