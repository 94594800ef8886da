"""The gateway's figures for Prometheus, at /metrics, where anybody may read them.

So there is no tenant, object or token in them. And nobody can make them grow: each label's values are words of the
gateway's own (`offered.ENDPOINTS`, an access record's verdicts) or HTTP codes, never anything a caller sent. What is
not offered, an unknown path or method, counts as "none".

One registry for each application, not the library's global one: two applications in one process, as in tests, do not
count each other's requests.
"""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from clusters.gateway.access_log import Record

__all__ = ["CONTENT_TYPE", "Metrics", "Purpose"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NONE = "none"
SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Purpose = Literal["tokenreview", "subjectaccessreview", "request", "readiness"]
"""What the gateway asks the kube-apiserver for: the two reviews, a tenant's request, whether it is there."""


class Metrics:
    """What is counted, and the page that says it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "gateway_requests",
            "Requests answered, by what was asked for and how it ended.",
            ["resource", "verb", "code", "verdict"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "gateway_request_duration_seconds",
            "From a request's headers to the end of its answer.",
            ["resource", "verb"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "gateway_requests_in_flight", "Requests that are not answered yet.", registry=self._registry
        )
        self._upstream = Histogram(
            "gateway_apiserver_request_duration_seconds",
            'Requests to the kube-apiserver, by what for and the code of the answer; "none" is no answer.',
            ["purpose", "code"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._cached = Counter(
            "gateway_reviews_from_cache",
            "Reviews that were not asked for, because an earlier answer still held.",
            ["review"],
            registry=self._registry,
        )

    def answered(self, record: Record, seconds: float) -> None:
        """A request is at its end. Resource and verb in its record are the table's words, or empty."""
        resource = f"{record.resource}/{record.subresource}" if record.subresource else record.resource or NONE
        verb = record.verb or NONE
        self._requests.labels(resource, verb, str(record.code), record.verdict).inc()
        self._latency.labels(resource, verb).observe(seconds)

    def asked(self, purpose: Purpose, code: int | None, seconds: float) -> None:
        """The kube-apiserver was asked; `code` is None if it did not answer."""
        self._upstream.labels(purpose, NONE if code is None else str(code)).observe(seconds)

    def review_from_cache(self, review: Literal["tokenreview", "subjectaccessreview"]) -> None:
        self._cached.labels(review).inc()

    def page(self) -> bytes:
        """All of it, in Prometheus' text format (CONTENT_TYPE)."""
        return generate_latest(self._registry)
