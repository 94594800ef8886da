"""Who may do what with a subresource.

Whoever comes through the kube-apiserver has been let in there; it forwards the request with a certificate of its own
(the front proxy's) and says in headers whose it is. Nobody else is believed. Then virt-api asks once more, by a
SubjectAccessReview, as KubeVirt does: the kube-apiserver's own check is not this server's to rely on.

A refusal is 401 with a line of text, no Status: KubeVirt's answer, which only those see who come past the
kube-apiserver.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from starlette.requests import Request

from clusters.kubevirt.client_certificates import client_name
from clusters.kubevirt.install import SUBRESOURCES as GROUP
from virtflow.kube import NO_ANSWER, KubeClient, KubeError, Object, describe
from virtflow.kube.resources import SUBJECT_ACCESS_REVIEWS

__all__ = ["VERBS", "Target", "Unauthorized", "Unavailable", "authenticate", "authorize"]

log = logging.getLogger(__name__)

USER, GROUPS, EXTRA = "x-remote-user", "x-remote-group", "x-remote-extra-"
VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# They become parts of paths at the kube-apiserver, where ".." would be another path.
NAME = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")


class Unauthorized(Exception):  # noqa: N818 - a verdict, not a fault
    """The caller is nobody, or may not do this: 401 with the message as text."""


class Unavailable(Exception):  # noqa: N818 - named for the answer
    """The kube-apiserver could not be asked: 500 without a body."""


@dataclass(frozen=True)
class Target:
    """What a request is about."""

    version: str
    namespace: str
    resource: str
    name: str
    subresource: str
    """With all that follows in the path ("portforward/22"); "" for a resource that stands alone."""

    @classmethod
    def of(cls, request: Request) -> Self:
        """From a path `/apis/GROUP/VERSION/namespaces/NAMESPACE/…`. Raises Unauthorized for one that is unknown."""
        # Not request.url, which is put together of headers and taken apart anew: a "%3F" would end its path.
        path = request.scope["path"]
        match path.split("/")[3:]:
            case [version, _, namespace, "expand-vm-spec" as resource] if NAME.fullmatch(namespace):
                return cls(version, namespace, resource, "", "")
            case [
                version,
                _,
                namespace,
                ("virtualmachines" | "virtualmachineinstances") as resource,
                name,
                *rest,
            ] if rest and NAME.fullmatch(namespace) and NAME.fullmatch(name):
                return cls(version, namespace, resource, name, "/".join(rest))
        raise Unauthorized(f"unknown api endpoint: {path}")

    @property
    def full_name(self) -> str:
        """As discovery names it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def attributes(self, verb: str) -> Object:
        """Of a SubjectAccessReview."""
        asked = {
            "group": GROUP,
            "version": self.version,
            "verb": verb,
            "namespace": self.namespace,
            "resource": self.resource,
            "name": self.name,
            "subresource": self.subresource.partition("/")[0],
        }
        return {key: value for key, value in asked.items() if value}


def authenticate(front_proxies: Sequence[str], request: Request) -> Object:
    """The user behind the front proxy, in the fields of a SubjectAccessReview.

    `front_proxies` are the common names that its certificate may have. Raises Unauthorized.
    """
    if client_name(request) not in front_proxies:
        raise Unauthorized("request is not authenticated")
    headers = request.headers
    if not headers.get(USER):
        raise Unauthorized("a valid user header is required for authorization")
    if GROUPS not in headers:
        raise Unauthorized("a valid group header is required for authorization")
    extra = {unquote(key.removeprefix(EXTRA)): headers.getlist(key) for key in headers if key.startswith(EXTRA)}
    return {"user": headers[USER], "groups": headers.getlist(GROUPS), "extra": extra}


async def authorize(kube: KubeClient, user: Object, request: Request) -> Target:
    """What the request is about, if the user may do it. Raises Unauthorized, Unavailable."""
    target = Target.of(request)
    review: Object = {"spec": {**user, "resourceAttributes": target.attributes(VERBS[request.method])}}
    try:
        answer = await kube.create(SUBJECT_ACCESS_REVIEWS, review)
    except (KubeError, *NO_ANSWER) as error:
        log.error("no SubjectAccessReview: %s", describe(error))
        raise Unavailable from error
    if not answer["status"]["allowed"]:
        raise Unauthorized(answer["status"].get("reason", ""))
    return target
