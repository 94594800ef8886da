"""Requests to the IAM gateway, as a tenant's user makes them, and as somebody would who is none."""

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote

import aiohttp
import yaml
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.bearers import authorization
from activities.errors import refusals_are_final
from activities.heartbeat import heartbeating
from activities.manifests import label
from activities.tokens import LIFETIME, Tokens
from clusters.endpoints import Endpoints
from clusters.gateway import AUDIENCE
from virtflow.kube import NO_ANSWER, KubeClient, describe
from virtflow.kube.resources import SECRETS, SERVICE_ACCOUNTS
from workflows.access_models import Withdrawal, WithdrawnToken, WithdrawnTokenOrder
from workflows.models import GatewayAnswer, GatewayRequest, Verb
from workflows.tenant_models import Tenant

__all__ = ["Gateway"]

METHODS = {Verb.CREATE: "POST", Verb.LIST: "GET", Verb.GET: "GET", Verb.UPDATE: "PUT", Verb.DELETE: "DELETE"}
REQUEST_LIMIT = aiohttp.ClientTimeout(total=20)
ACCEPT = ("Accept", "application/json")
LOOK_EVERY = timedelta(milliseconds=250)
REVOCABLE = "revocable"
"""Name of the Secret to which a token is bound that is to be withdrawn."""

Headers = Iterable[tuple[str, str]]


class Gateway:
    """A request is sent with the token that its bearer has; none enters a history or a log."""

    def __init__(self, kube: KubeClient, http: aiohttp.ClientSession, endpoints: Endpoints, tokens: Tokens) -> None:
        self._kube = kube
        self._http = http
        self._url = endpoints.gateway_url
        self._trust = ssl.create_default_context(cafile=str(endpoints.ca_cert))
        self._tokens = tokens

    @activity.defn
    async def send(self, request: GatewayRequest) -> GatewayAnswer:
        """Send it and return the answer, a refusal like any other. A create that is retried makes one object."""
        request_id = derived_request_id()
        headers = [
            ACCEPT,
            ("X-Request-Id", request_id),
            *await self._authorization(request),
            *request.headers.items(),
        ]
        path = path_of(request.name, request.namespace)
        body = None
        if request.manifest is not None:
            headers.append(("Content-Type", "application/yaml"))
            body = _labelled(request)
        answer = await self._exchange(METHODS[request.verb], path, headers, body)
        if request.verb is Verb.CREATE and answer.code == 409 and activity.info().attempt > 1:
            return await self._created_before(request, request_id) or answer
        return answer

    @activity.defn
    async def withdraw_token(self, order: WithdrawnTokenOrder) -> WithdrawnToken:
        """Mint a token that works, delete what it depends on, and use it until it is refused, or the time is over.

        A retry makes again what the first try deleted.
        """
        async with heartbeating():
            with refusals_are_final():
                token = await self._withdrawable(order)
            headers = [ACCEPT, ("Authorization", f"Bearer {token}")]
            worked = await self._exchange("GET", "/virtualmachines", headers, None)
            with refusals_are_final():
                await self._withdraw(order.tenant, order.withdrawal)
            began, let_in_for = time.monotonic(), timedelta()
            while True:
                sent = timedelta(seconds=time.monotonic() - began)
                last = await self._exchange("GET", "/virtualmachines", headers, None)
                if last.code == 401 or sent > order.watched_for:
                    return WithdrawnToken(worked.code, _without_content(last), let_in_for)
                let_in_for = sent
                await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def _withdrawable(self, order: WithdrawnTokenOrder) -> str:
        tenant, bound_to = order.tenant, None
        # With its labels, as the tenant was made: what is applied without them has them taken away.
        account = {"metadata": {"name": tenant.user, "labels": order.labels}}
        await self._kube.apply(SERVICE_ACCOUNTS, account, tenant.namespace)
        if order.withdrawal is Withdrawal.SECRET:
            secret = {"metadata": {"name": REVOCABLE, "labels": order.labels}}
            bound_to = await self._kube.apply(SECRETS, secret, tenant.namespace)
        return await self._kube.create_token(
            tenant.namespace, tenant.user, LIFETIME, audiences=[AUDIENCE], bound_to=bound_to
        )

    async def _withdraw(self, tenant: Tenant, withdrawal: Withdrawal) -> None:
        if withdrawal is Withdrawal.SECRET:
            await self._kube.delete(SECRETS, REVOCABLE, tenant.namespace)
        else:
            await self._kube.delete(SERVICE_ACCOUNTS, tenant.user, tenant.namespace)
            self._tokens.forget(tenant.namespace)

    async def _authorization(self, request: GatewayRequest) -> Headers:
        value = await authorization(request.bearer, request.tenant, self._tokens)
        return [] if value is None else [("Authorization", value)]

    async def _exchange(self, method: str, path: str, headers: Headers, body: str | None) -> GatewayAnswer:
        try:
            async with self._http.request(
                method, self._url + path, headers=list(headers), data=body, ssl=self._trust, timeout=REQUEST_LIMIT
            ) as response:
                text = await response.text()
        except NO_ANSWER as error:
            # By type and text: the error's repr would hold the request's headers, and the token with them.
            raise ApplicationError(f"The gateway gave no answer to {method} {path}: {describe(error)}") from None
        answer = GatewayAnswer(
            code=response.status,
            body=json.loads(text) if text else {},
            warnings=[warning_text(value) for value in response.headers.getall("Warning", [])],
            request_id=response.headers.get("X-Request-Id", ""),
        )
        if answer.code in (429, 500, 502, 503, 504):
            raise ApplicationError(
                f"The gateway answered {answer.code} to {method} {path}: {answer.message}",
                next_retry_delay=retry_after(response.headers.get("Retry-After", "")),
            )
        return answer

    async def _created_before(self, request: GatewayRequest, request_id: str) -> GatewayAnswer | None:
        """The object, if what is in the way of a retried create is what the first try made."""
        metadata = yaml.load(request.manifest or "", Loader=yaml.CSafeLoader)["metadata"]
        headers = [ACCEPT, *await self._authorization(request)]
        path = path_of(metadata["name"], request.namespace or metadata.get("namespace"))
        there = await self._exchange("GET", path, headers, None)
        labels = there.body.get("metadata", {}).get("labels", {}) if there.code == 200 else {}
        if not request.labels or not request.labels.items() <= labels.items():
            return None
        return GatewayAnswer(201, there.body, there.warnings, request_id)


def path_of(name: str | None, namespace: str | None) -> str:
    """The gateway's path and query for one virtual machine, or all of them."""
    path = "/virtualmachines" + (f"/{quote(name, safe='')}" if name else "")
    return path + (f"?namespace={quote(namespace, safe='')}" if namespace else "")


def retry_after(header: str) -> timedelta | None:
    """The pause that a server asks for in seconds; None where it says none, or a date, and the policy's own holds."""
    return timedelta(seconds=min(int(header), 60)) if header.isascii() and header.isdigit() else None


def derived_request_id() -> str:
    """The same in every try of this activity: it is how the evidence of a create is found in the logs."""
    info = activity.info()
    return hashlib.sha256(f"{info.workflow_run_id} {info.activity_id}".encode()).hexdigest()[:32]


def _without_content(answer: GatewayAnswer) -> GatewayAnswer:
    """What a refusal says; a list of machines is nobody's business here."""
    return answer if answer.code >= 400 else replace(answer, body={})


def _labelled(request: GatewayRequest) -> str:
    """The manifest with the run's labels; as it was where that is not possible, for the server to refuse."""
    assert request.manifest is not None
    try:
        manifest = yaml.load(request.manifest, Loader=yaml.CSafeLoader)
        label(manifest, request.labels)
    except (yaml.YAMLError, AttributeError, TypeError):
        return request.manifest
    text: str = yaml.dump(manifest, Dumper=yaml.CSafeDumper, sort_keys=False)
    return text


def warning_text(header: str) -> str:
    """`299 - "spec.running is deprecated"` → the text between the quotes, unescaped (RFC 7234, 5.5)."""
    _, _, quoted = header.partition('"')
    return quoted.removesuffix('"').replace('\\"', '"').replace("\\\\", "\\") if quoted else header
