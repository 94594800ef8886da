"""What virt-api asks of a node: an HTTPS call to the virt-handler there, each side with a certificate of its own."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp

from clusters.kubevirt.api.subresources.statuses import internal
from virtflow.kube import NO_ANSWER, describe

__all__ = ["HandlerAccess", "Nodes"]

TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True)
class HandlerAccess:
    """Where virt-handler listens ("https://127.0.0.1:8186"), and the PEM files for speaking to it."""

    url: str
    ca: Path
    cert: Path
    key: Path


class Nodes:
    """KubeVirt finds the handler of a node by its pod; here one process speaks for all nodes."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url.rstrip("/")
        self._http = http

    @classmethod
    @asynccontextmanager
    async def connect(cls, access: HandlerAccess) -> AsyncIterator["Nodes"]:
        """Opens no connection yet."""
        tls = ssl.create_default_context(cafile=str(access.ca))
        tls.load_cert_chain(access.cert, access.key)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT.total_seconds())
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout) as http:
            yield cls(access.url, http)

    async def put(self, namespace: str, instance: str, action: str) -> None:
        """Have the instance's node carry out an action. Raises `Refused` (500) if it does not."""
        url = f"{self._url}/v1/namespaces/{namespace}/virtualmachineinstances/{instance}/{action}"
        try:
            async with self._http.put(url) as answer:
                if not answer.ok:
                    raise internal(f"unexpected return code {answer.status} ({answer.status} {answer.reason})")
        except NO_ANSWER as error:
            raise internal(f'Put "{url}": {describe(error)}') from error
