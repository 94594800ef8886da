"""An asynchronous client of the kube-apiserver that speaks plain JSON.

The official client (`kubernetes.aio`) reads the kubeconfig and knows its ways to authenticate; requests are
aiohttp's, without the official one's generated models: a custom resource has none, and decoding thousands of pods
into model objects costs more than the requests do. Watches come from `virtflow.kube.informer`.
"""

import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from virtflow.kube.resources import CONTROLLER_REVISIONS, SERVICE_ACCOUNTS, Object, Resource

__all__ = ["NO_ANSWER", "KubeClient", "KubeError", "Response", "UnreadableAnswer", "describe", "encode"]

REQUEST_TIMEOUT = timedelta(seconds=30)
CONNECTIONS = 1000
"""aiohttp's default of 100 would queue a watch behind a burst of creates, and a starved watch looks like a hang."""
NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError)
"""What is raised when a server did not answer: what was asked for may have been done, or not."""

YAML = {"Content-Type": "application/yaml"}
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class KubeError(Exception):
    """The kube-apiserver said no: `status` is the Status object it answered with, whole."""

    def __init__(self, code: int, status: Object, request: str) -> None:
        self.code = code
        self.status = status
        self.reason: str = status.get("reason") or ""
        self.message: str = status.get("message") or ""
        super().__init__(f"{request}: {code} {self.reason}: {self.message}")


class UnreadableAnswer(aiohttp.ClientPayloadError):
    """What came is no JSON, or JSON nested deeper than is read here: as good as no answer, so one of `NO_ANSWER`."""


def describe(error: BaseException) -> str:
    """An error for a log, by its type and text: aiohttp's repr has the request's headers, bearer token included."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


@dataclass(frozen=True)
class Response:
    """An answer as it came: its code, its decoded body, and of its headers `Warning` and `Retry-After`."""

    code: int
    body: Object
    warnings: list[str] = field(default_factory=list)
    text: bytes = b""
    """The body as it came, which is JSON where it was no refusal."""
    retry_after: str = ""
    """Seconds, or a date; empty where the server does not say."""


class KubeClient:
    """Requests of one identity to one kube-apiserver. Use as `async with await KubeClient.connect(path)`."""

    def __init__(self, api: Any, session: aiohttp.ClientSession, agent: str) -> None:
        self._api = api
        self._session = session
        self._agent = agent
        self._url: str = api.configuration.host.rstrip("/")
        # Asked for once: aiohttp's own `trust_env` reads the environment, and a netrc file, in a thread, twice for
        # every request, which takes as long as the request.
        self._proxy: str | None = api.configuration.proxy or proxy_of(self._url)

    @classmethod
    async def connect(cls, kubeconfig: Path, agent: str = "virtflow") -> Self:
        """Read a kubeconfig's current context; `agent` is the name in the audit log. Opens no connection yet."""
        # It takes a second to import, which whoever only handles objects, or prints a status, need not wait for.
        from kubernetes.aio import client, config

        configuration = client.Configuration()
        await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        api = client.ApiClient(configuration)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=api.rest_client.ssl_context)
        return cls(api, aiohttp.ClientSession(connector=connector, read_bufsize=2**21), agent)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._session.close()
        await self._api.close()

    @property
    def server(self) -> str:
        """The kube-apiserver's URL."""
        return self._url

    def trust(self) -> ssl.SSLContext:
        """For whoever asks this server with credentials of another: no certificate goes with it."""
        return ssl.create_default_context(cafile=self._api.configuration.ssl_ca_cert)

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = REQUEST_TIMEOUT,
    ) -> Response:
        """Send one request and return whatever was answered, refusals included.

        Raises one of `NO_ANSWER` when there was none, and ValueError for a body that JSON cannot say.
        """
        response = await self._open(method, path, body, query, headers, timeout)
        try:
            text = await response.read()
        finally:
            response.release()
        is_message = response.status >= 400 or response.content_type == "text/plain"
        decoded = _message(response.status, text) if is_message else _decode(text, f"The answer to {method} {path}")
        warnings, retry_after = response.headers.getall("Warning", []), response.headers.get("Retry-After", "")
        return Response(response.status, decoded, warnings, text, retry_after)

    async def request(self, method: str, path: str, **kwargs: Any) -> Object:
        """`send`, but a refusal is raised as `KubeError`."""
        response = await self.send(method, path, **kwargs)
        if response.code >= 400:
            raise KubeError(response.code, response.body, f"{method} {path}")
        return response.body

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        return await self.request("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None = None, *, selector: str | None = None
    ) -> list[Object]:
        query = {"labelSelector": selector} if selector else None
        answer = await self.request("GET", resource.path(namespace), query=query)
        return list(answer["items"])

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        if resource == CONTROLLER_REVISIONS:
            # Its data may not change, and is kept as it came: byte by byte. A patch of anything else in it brings all
            # into the kube-apiserver's own order, and is refused unless it was in that order before, as YAML is.
            return await self.request("POST", resource.path(namespace), body=encode(body), headers=YAML)
        return await self.request("POST", resource.path(namespace), body=body)

    async def create_token(
        self,
        namespace: str,
        account: str,
        lifetime: timedelta,
        *,
        audiences: Sequence[str] = (),
        bound_to: Object | None = None,
    ) -> str:
        """A service account's token, from the TokenRequest API. For the apiserver itself if no audience is named.

        Bound to a Secret or Pod of the namespace (the whole object), it is worthless when that is deleted.
        """
        spec: Object = {"expirationSeconds": int(lifetime.total_seconds())}
        if bound_to:
            reference = {key: bound_to[key] for key in ("apiVersion", "kind")}
            spec["boundObjectRef"] = reference | {key: bound_to["metadata"][key] for key in ("name", "uid")}
        if audiences:
            spec["audiences"] = list(audiences)
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self.request("POST", SERVICE_ACCOUNTS.path(namespace, account, "token"), body=body)
        return str(answer["status"]["token"])

    async def replace(self, resource: Resource, body: Object, *, subresource: str | None = None) -> Object:
        """Put an object back; 409 if someone else wrote it since its resourceVersion."""
        meta = body["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"], subresource)
        return await self.request("PUT", path, body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: object,
        namespace: str | None = None,
        *,
        kind: Literal["merge", "json", "strategic"] = "merge",
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        path = resource.path(namespace, name, subresource)
        query = {"dryRun": "All"} if dry_run else None
        return await self.request("PATCH", path, body=patch, query=query, headers={"Content-Type": PATCH_TYPES[kind]})

    async def apply(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """Server-side apply: create the object or bring it to this shape; the same call twice changes nothing."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self.request(
            "PATCH",
            resource.path(namespace, body["metadata"]["name"]),
            body=body,
            query={"fieldManager": "virtflow", "force": "true"},
            headers={"Content-Type": PATCH_TYPES["apply"]},
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
        grace_seconds: int | None = None,
    ) -> Object | None:
        """Ask for an object's end; with `uid`, only of that very object. None if it is gone already, which is fine.

        The answer is the object where something must still happen before its end, else a Status.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            return await self.request("DELETE", resource.path(namespace, name), body=options)
        except KubeError as error:
            if error.code != 404:
                raise
            return None

    async def delete_all(self, resource: Resource, namespace: str) -> None:
        """Ask for the end of every object of a kind in a namespace."""
        await self.request("DELETE", resource.path(namespace))

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        """The lines of a watch, until the server or `timeout` ends it, or one is an `UnreadableAnswer`."""
        response = await self._open("GET", path, None, query, None, timeout)
        try:
            if response.status >= 400:
                status = _message(response.status, await response.read())
                raise KubeError(response.status, status, f"WATCH {path}")
            # Not aiohttp's own reading by lines, which refuses one that is longer than 128 KiB.
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield _decode(line, f"An event of {path}")
        finally:
            # Not released: the rest of a watch must not be drained. Nor only closed: that would take leave of
            # the server by TLS, and whoever ends the event loop meanwhile leaves an open socket.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()

    async def _open(
        self,
        method: str,
        path: str,
        body: object,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        timeout: timedelta,
    ) -> aiohttp.ClientResponse:
        all_headers: dict[str, str] = {
            "Accept": "application/json",
            "User-Agent": self._agent,
            **(headers or {}),
        }
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else encode(body)
            all_headers.setdefault("Content-Type", "application/json")
        await self._api.update_params_for_auth(all_headers, [], ["BearerToken"], path, method, body)
        url = self._url + path
        if query:
            url += "?" + urlencode(query)
        return await self._session.request(
            method,
            url,
            headers=all_headers,
            data=data,
            proxy=self._proxy,
            server_hostname=self._api.configuration.tls_server_name,
            timeout=aiohttp.ClientTimeout(total=timeout.total_seconds()),
        )


def proxy_of(url: str) -> str | None:
    """Which proxy the environment wants for a server."""
    parts = urlsplit(url)
    # Of an IPv6 address the two differ in more than the port, and either may be in the list of exceptions.
    excepted = proxy_bypass(parts.netloc) or proxy_bypass(parts.hostname or "")
    return None if excepted else getproxies().get(parts.scheme)


def encode(value: object) -> bytes:
    """The value as JSON. Raises ValueError for what cannot be said in it: half a character, or an endless number."""
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise ValueError(f"it cannot be written as JSON: {error}") from error


def _decode(text: bytes, what: str) -> Object:
    try:
        decoded: Object = orjson.loads(text) if text else {}
    except ValueError as error:
        raise UnreadableAnswer(f"{what} cannot be read as JSON: {error}") from error
    return decoded


def _message(code: int, text: bytes) -> Object:
    """The body of a refusal; one that is no JSON (a proxy's, or "not ready") becomes a Status with it as message."""
    try:
        return _decode(text, "")
    except UnreadableAnswer:
        return {"kind": "Status", "message": text.decode(errors="replace").strip(), "code": code}
