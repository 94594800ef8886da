"""virt-handler's HTTPS endpoint: what virt-api has the node of an instance do.

Paths and certificate names are KubeVirt's. Only virt-api may call: the certificate it shows must be of KubeVirt's own
CA, which signs no others, and have the name of a client.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from clusters.kubevirt.client_certificates import client_name, https_server
from clusters.kubevirt.install import HANDLER_CLIENT_NAME
from virtflow.errors import VirtflowError
from virtflow.kube import NO_ANSWER, Key, KubeError, describe

__all__ = ["Action", "NodeUnreachableError", "create_app", "handler_server"]

log = logging.getLogger(__name__)

KEEP_ALIVE = timedelta(minutes=1)
"""virt-api's client keeps an idle connection for 15 s (aiohttp's)."""

GRACE = timedelta(seconds=1)

Action = Callable[[Key], Awaitable[bool]]
"""Does something with the instance of this key. False if there is none."""


class NodeUnreachableError(VirtflowError):
    """The node of an instance is gone, or nothing on it answers."""


def create_app(actions: dict[str, Action]) -> Starlette:
    """The ASGI application: a PUT for each action, by its name."""

    def endpoint(name: str, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            if client_name(request) != HANDLER_CLIENT_NAME:
                return PlainTextResponse("this is for virt-api", 403)
            key = request.path_params["namespace"], request.path_params["name"]
            try:
                found = await action(key)
            except NodeUnreachableError as error:
                log.warning("%s of %s: %s", name, "/".join(key), error)
                return PlainTextResponse(str(error), 503)
            except (KubeError, *NO_ANSWER) as error:
                log.warning("%s of %s: %s", name, "/".join(key), describe(error))
                return PlainTextResponse(describe(error), 500)
            return Response(status_code=202 if found else 404)

        return serve

    return Starlette(
        routes=[
            Route(
                f"/v1/namespaces/{{namespace}}/virtualmachineinstances/{{name}}/{name}",
                endpoint(name, action),
                methods=["PUT"],
            )
            for name, action in actions.items()
        ]
    )


def handler_server(app: Starlette, port: int, cert: Path, key: Path, ca: Path) -> uvicorn.Server:
    """A server of the application on 127.0.0.1; clients need a certificate of `ca`."""
    return https_server(app, port, cert, key, ca, clients=ssl.CERT_REQUIRED, keep_alive=KEEP_ALIVE, grace=GRACE)
