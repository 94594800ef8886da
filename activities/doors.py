"""The two ways a tenant has into a cluster, asked in one way: the gateway, and the kube-apiserver itself.

A server that is away or busy is asked again; what it answers then is the answer.
"""

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
import orjson

from activities.gateway import retry_after
from activities.tokens import FOR_KUBE_APISERVER
from clusters.endpoints import Endpoints
from clusters.gateway import AUDIENCE
from virtflow.access.requests import DoorHttp
from virtflow.kube import NO_ANSWER, KubeClient, Object, describe
from workflows.access_models import Door

__all__ = ["AUDIENCES", "DoorReply", "Doors"]

AUDIENCES = {Door.GATEWAY: AUDIENCE, Door.KUBE_APISERVER: FOR_KUBE_APISERVER}
REQUEST_LIMIT = aiohttp.ClientTimeout(total=10)
WORTH_ANOTHER_TRY = frozenset({429, 502, 503, 504})
TRIES = 4
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=200), timedelta(seconds=5)


@dataclass(frozen=True)
class DoorReply:
    """`code` 0 if there was none. `status` is a refusal's body; what was not refused is read and forgotten."""

    code: int
    status: Object = field(default_factory=dict)

    @property
    def reason(self) -> str:
        return str(self.status.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.status.get("message", ""))


class Doors:
    """Has an answer, or none, within `workflows.options.ASKED_WITHIN`.

    Never sends the platform's own credentials: who asks is who holds the token.
    """

    def __init__(self, kube: KubeClient, http: aiohttp.ClientSession, endpoints: Endpoints) -> None:
        self._http = http
        self._servers: dict[Door, tuple[str, ssl.SSLContext, str]] = {
            Door.GATEWAY: (
                endpoints.gateway_url,
                ssl.create_default_context(cafile=str(endpoints.ca_cert)),
                "X-Request-Id",
            ),
            Door.KUBE_APISERVER: (kube.server, kube.trust(), "Audit-ID"),
        }

    async def ask(self, door: Door, request: DoorHttp, token: str, request_id: str) -> DoorReply:
        """The answer, under this id in the logs of both servers."""
        pause = FIRST_PAUSE
        for left in reversed(range(TRIES)):
            reply, wait = await self._ask_once(door, request, token, request_id)
            if not left or (reply.code and reply.code not in WORTH_ANOTHER_TRY):
                break
            await asyncio.sleep(min(wait or pause, LONGEST_PAUSE).total_seconds())
            pause = 2 * pause
        return reply

    async def _ask_once(
        self, door: Door, request: DoorHttp, token: str, request_id: str
    ) -> tuple[DoorReply, timedelta | None]:
        """The answer, and how long the server wants to be left alone."""
        url, trust, id_header = self._servers[door]
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}", id_header: request_id}
        data = None
        if request.body is not None:
            headers["Content-Type"] = request.content_type
            data = orjson.dumps(request.body)
        try:
            async with self._http.request(
                request.method,
                url + request.path,
                params=request.query,
                headers=headers,
                data=data,
                ssl=trust,
                timeout=REQUEST_LIMIT,
            ) as response:
                if response.status < 400:
                    if "watch" not in request.query:  # which would not end
                        await response.read()
                    return DoorReply(response.status), None
                after = response.headers.get("Retry-After", "")
                text = await response.text(errors="replace")
        except NO_ANSWER as error:
            # By type and text: an error's repr would hold the request's headers, and the token with them.
            return DoorReply(0, {"message": describe(error)}), None
        try:
            status = json.loads(text)
        except ValueError:
            status = None
        if not isinstance(status, dict):
            status = {"message": text[:200].strip()}
        return DoorReply(response.status, status), retry_after(after)
