"""Requests to the IAM gateway, as a tenant's user makes them."""

import hashlib
import json
import secrets
import ssl
import time
from datetime import timedelta

import aiohttp
import yaml
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.errors import refusals_are_final
from clusters.endpoints import Endpoints
from clusters.gateway import AUDIENCE
from virtflow.kube import NO_ANSWER, KubeClient, describe
from workflows.models import Bearer, GatewayAnswer, GatewayRequest, Verb
from workflows.tenant_models import Tenant

__all__ = ["Gateway"]

METHODS = {Verb.CREATE: "POST", Verb.LIST: "GET", Verb.GET: "GET", Verb.UPDATE: "PUT", Verb.DELETE: "DELETE"}
TOKEN_LIFETIME = timedelta(minutes=15)
RENEW_BEFORE = timedelta(minutes=5)
REQUEST_LIMIT = aiohttp.ClientTimeout(total=20)


class Gateway:
    """Mints a short-lived token for each tenant and keeps it in memory: none enters a history or a log."""

    def __init__(self, kube: KubeClient, http: aiohttp.ClientSession, endpoints: Endpoints) -> None:
        self._kube = kube
        self._http = http
        self._url = endpoints.gateway_url
        self._trust = ssl.create_default_context(cafile=str(endpoints.ca_cert))
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}

    @activity.defn
    async def send(self, request: GatewayRequest) -> GatewayAnswer:
        """Send it and return the answer, a refusal like any other. A create that is retried makes one object."""
        request_id = derived_request_id()
        headers = {"Accept": "application/json", "X-Request-Id": request_id, **await self._authorization(request)}
        path = "/virtualmachines" + (f"/{request.name}" if request.name else "")
        if request.namespace:
            path += f"?namespace={request.namespace}"
        body = None
        if request.manifest is not None:
            headers["Content-Type"] = "application/yaml"
            body = _labelled(request)
        answer = await self._exchange(METHODS[request.verb], path, headers, body)
        if request.verb is Verb.CREATE and answer.code == 409 and activity.info().attempt > 1:
            return await self._created_before(request, request_id) or answer
        return answer

    async def _authorization(self, request: GatewayRequest) -> dict[str, str]:
        match request.bearer:
            case Bearer.TENANT:
                return {"Authorization": f"Bearer {await self._token(request.tenant)}"}
            case Bearer.NOBODY:
                return {"Authorization": f"Bearer {secrets.token_urlsafe(48)}"}
            case Bearer.NONE:
                return {}

    async def _token(self, tenant: Tenant) -> str:
        key = (tenant.namespace, tenant.user)
        token, renew_at = self._tokens.get(key, ("", 0.0))
        if time.monotonic() >= renew_at:
            with refusals_are_final():
                token = await self._kube.create_token(*key, TOKEN_LIFETIME, audiences=[AUDIENCE])
            self._tokens[key] = token, time.monotonic() + (TOKEN_LIFETIME - RENEW_BEFORE).total_seconds()
        return token

    async def _exchange(self, method: str, path: str, headers: dict[str, str], body: str | None) -> GatewayAnswer:
        try:
            async with self._http.request(
                method, self._url + path, headers=headers, data=body, ssl=self._trust, timeout=REQUEST_LIMIT
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
            raise ApplicationError(f"The gateway answered {answer.code} to {method} {path}: {answer.message}")
        return answer

    async def _created_before(self, request: GatewayRequest, request_id: str) -> GatewayAnswer | None:
        """The object, if what is in the way of a retried create is what the first try made."""
        name = yaml.load(request.manifest or "", Loader=yaml.CSafeLoader)["metadata"]["name"]
        headers = {"Accept": "application/json", **await self._authorization(request)}
        there = await self._exchange("GET", f"/virtualmachines/{name}", headers, None)
        labels = there.body.get("metadata", {}).get("labels", {}) if there.code == 200 else {}
        if not request.labels or not request.labels.items() <= labels.items():
            return None
        return GatewayAnswer(201, there.body, there.warnings, request_id)


def derived_request_id() -> str:
    """The same in every try of this activity: it is how the evidence of a create is found in the logs."""
    info = activity.info()
    return hashlib.sha256(f"{info.workflow_run_id} {info.activity_id}".encode()).hexdigest()[:32]


def _labelled(request: GatewayRequest) -> str:
    """The manifest with the run's labels; as it was where that is not possible, for the server to refuse."""
    assert request.manifest is not None
    try:
        manifest = yaml.load(request.manifest, Loader=yaml.CSafeLoader)
        manifest.setdefault("metadata", {}).setdefault("labels", {}).update(request.labels)
    except (yaml.YAMLError, AttributeError):
        return request.manifest
    text: str = yaml.dump(manifest, Dumper=yaml.CSafeDumper, sort_keys=False)
    return text


def warning_text(header: str) -> str:
    """`299 - "spec.running is deprecated"` → the text between the quotes, unescaped (RFC 7234, 5.5)."""
    _, _, quoted = header.partition('"')
    return quoted.removesuffix('"').replace('\\"', '"').replace("\\\\", "\\") if quoted else header
