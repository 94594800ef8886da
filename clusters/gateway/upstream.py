"""The gateway's requests to the kube-apiserver: bounded in time, and counted by what they are for."""

from collections.abc import Mapping
from datetime import timedelta
from time import perf_counter

from clusters.gateway.metrics import Metrics, Purpose
from virtflow.kube import KubeClient, Response

__all__ = ["Upstream"]


class Upstream:
    """`kube` is the gateway's own identity; each request may take `timeout`."""

    def __init__(self, kube: KubeClient, timeout: timedelta, metrics: Metrics) -> None:
        self._kube = kube
        self._timeout = timeout
        self._metrics = metrics

    async def send(
        self,
        purpose: Purpose,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta | None = None,
    ) -> Response:
        """As `KubeClient.send`."""
        started = perf_counter()
        code = None
        try:
            answer = await self._kube.send(
                method, path, body=body, query=query, headers=headers, timeout=timeout or self._timeout
            )
            code = answer.code
        finally:
            self._metrics.asked(purpose, code, perf_counter() - started)
        return answer
