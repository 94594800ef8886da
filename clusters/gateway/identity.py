"""Who holds a token, and may they: the two questions the gateway asks the kube-apiserver, if it has no answer yet.

A good answer serves the requests of ten seconds (`cache.py` says what that costs). Each request notes in its record
whose reviews it used, its own or an earlier one's.

The token must have been made for the gateway (its audience), so that one sent here is worth nothing at the
kube-apiserver itself and one stolen there is worth nothing here. The tenant is the namespace of the service
account: an authenticated user who is none has no tenant to act for, and is refused.

Each question carries an Audit-ID made of the request id, so that the audit events of one request can be told apart
and found together.
"""

import base64
import contextlib
import hashlib
import re
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import orjson

from clusters.gateway.access import Access, ForbiddenError, forbidden
from clusters.gateway.access_log import Record
from clusters.gateway.cache import Review, ReviewCache
from clusters.gateway.install import NAMESPACE, TENANT_ROLE
from clusters.gateway.limits import STRANGERS, Rooms
from clusters.gateway.metrics import Metrics, Purpose
from clusters.gateway.status import StatusError
from clusters.gateway.upstream import Upstream
from virtflow.kube import Object, Resource, Response
from virtflow.kube.resources import SERVICE_ACCOUNTS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

__all__ = [
    "ACCESS_REVIEW_SUFFIX",
    "AUDIENCE",
    "TOKEN_REVIEW_SUFFIX",
    "Identity",
    "Reviewer",
    "no_tenant",
    "refused_impersonation",
    "unauthenticated",
]

AUDIENCE = "iam-gateway.virtflow"
"""What a tenant's token must be made for (TokenRequest `spec.audiences`)."""

TOKEN_REVIEW_SUFFIX = "-tokenreview"
LATER_TOKEN_REVIEW_SUFFIX = "-tokenreview-later"
"""Of the one after the body, where the first may no longer be used."""
ANY_ACCESS_REVIEW_SUFFIX = "-accessreview-any"
"""Of the one for any name."""
ACCESS_REVIEW_SUFFIX = "-accessreview"
"""Appended to the request id, these are the Audit-IDs of the reviews; the request itself has it bare."""

SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]+):[a-z0-9.-]+")


@dataclass(frozen=True)
class Identity:
    """An authenticated service account, as the TokenReview described it; `tenant` is its namespace."""

    user: str
    tenant: str
    uid: str = ""
    groups: list[str] = field(default_factory=list)
    extra: dict[str, list[str]] = field(default_factory=dict)
    digest: bytes = b""
    """SHA-256 of the token."""
    expires: float = inf
    """The end of the token, in seconds since 1970."""


class Reviewer:
    """Asks with the gateway's own rights. Raises StatusError 401 or 403, or 503 if it may not even ask."""

    def __init__(self, upstream: Upstream, metrics: Metrics) -> None:
        self._upstream = upstream
        self._metrics = metrics
        self._identities: ReviewCache[Identity] = ReviewCache()
        self._accesses: ReviewCache[str] = ReviewCache()
        self._strangers = Rooms(STRANGERS, "checks of tokens that were not seen here before")

    async def authenticate(self, token: str, record: Record, suffix: str = TOKEN_REVIEW_SUFFIX) -> Identity:
        """The service account that holds this token."""
        digest = hashlib.sha256(token.encode()).digest()

        async def ask() -> Review[Identity]:
            record.token_review = record.request_id + suffix
            if self._identities.knows(digest):
                return await self._review_token(token, digest, record)
            with self._strangers.place(""):
                return await self._review_token(token, digest, record)

        review = await self._identities.get(digest, ask)
        if review.audit_id != record.token_review:
            self._metrics.review_from_cache("tokenreview")
        record.token_review = review.audit_id
        return review.answer

    async def authorize(self, identity: Identity, access: Access, record: Record) -> str:
        """Return why it is allowed, in the authorizer's words; refuse as the kube-apiserver would."""
        if access.verb == "get":
            # Who may get whatever name may get this one, and the next, for which the answer will still hold.
            with contextlib.suppress(ForbiddenError):
                any_name = replace(access, name="")
                return await self._review_access(identity, any_name, record, ANY_ACCESS_REVIEW_SUFFIX)
        return await self._review_access(identity, access, record, ACCESS_REVIEW_SUFFIX)

    async def _review_access(self, identity: Identity, access: Access, record: Record, suffix: str) -> str:
        spec = {
            "user": identity.user,
            "uid": identity.uid,
            "groups": identity.groups,
            "extra": identity.extra,
            "resourceAttributes": access.attributes,
        }

        async def ask() -> Review[str]:
            record.access_review = record.request_id + suffix
            status = await self._ask("subjectaccessreview", SUBJECT_ACCESS_REVIEWS, spec, record.access_review)
            reason: str = status.get("reason", "")
            if not status.get("allowed"):
                raise forbidden(identity.user, access, reason)
            return Review(reason, record.access_review, identity.expires)

        # The whole of the question, so that no two of them can have one answer.
        digest = hashlib.sha256(identity.digest + orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)).digest()
        review = await self._accesses.get(digest, ask)
        if review.audit_id != record.access_review:
            self._metrics.review_from_cache("subjectaccessreview")
        record.access_review = review.audit_id
        return review.answer

    async def _review_token(self, token: str, digest: bytes, record: Record) -> Review[Identity]:
        spec = {"token": token, "audiences": [AUDIENCE]}
        status = await self._ask("tokenreview", TOKEN_REVIEWS, spec, record.token_review)
        # A server that knows nothing of audiences answers without them, and would accept any token.
        if not status.get("authenticated") or AUDIENCE not in status.get("audiences", []):
            raise unauthenticated(status.get("error") or f"the token is not for audience {AUDIENCE}")
        user: dict[str, Any] = status["user"]
        name: str = user["username"]
        account = SERVICE_ACCOUNT.fullmatch(name)
        if account is None:
            raise StatusError(403, f'User "{name}" is not a service account, so it belongs to no tenant.')
        uid, groups, extra = user.get("uid", ""), user.get("groups", []), user.get("extra", {})
        expires = expiry_of(token)
        return Review(Identity(name, account[1], uid, groups, extra, digest, expires), record.token_review, expires)

    async def _ask(self, purpose: Purpose, review: Resource, spec: Object, audit_id: str) -> Object:
        body = {"apiVersion": review.api_version, "kind": review.kind, "spec": spec}
        headers = {"Audit-ID": audit_id}
        answer = await self._upstream.send(purpose, "POST", review.path(), body=body, headers=headers)
        if answer.code >= 400:
            raise StatusError(
                503,
                f"The gateway could not check this request: the kube-apiserver refused its {review.kind} "
                f"({answer.code}). Nothing was written. This is for the operator to mend, not the caller.",
                why=f"{review.kind} refused: {answer.code} {answer.body.get('message', '')}",
            )
        result: Object = answer.body["status"]
        return result


def expiry_of(token: str) -> float:
    """The `exp` of a token that was found good, in seconds since 1970; endless if it has none.

    Nothing is believed that was not checked: who checked the token has checked this claim with it.
    """
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return inf


def unauthenticated(why: str) -> StatusError:
    """401 that tells the caller no more than the kube-apiserver would, and the operator the cause."""
    return StatusError(401, "Unauthorized", why=why, headers={"WWW-Authenticate": "Bearer"})


def refused_impersonation(answer: Response) -> bool:
    """Whether the kube-apiserver refused the gateway the tenant's name, before it looked at the request itself."""
    # A refusal of the request would be about what was asked for, and service accounts are not offered.
    details = answer.body.get("details")
    return answer.code == 403 and isinstance(details, dict) and details.get("kind") == SERVICE_ACCOUNTS.plural


def no_tenant(identity: Identity, answer: Response) -> StatusError:
    """403: RBAC would let this account do it, but nobody has made its namespace a tenant's."""
    return StatusError(
        403,
        f'Namespace "{identity.tenant}" of user "{identity.user}" is not a tenant\'s: the gateway may not act for '
        "its service accounts, and nothing was written. The platform's operator can make it one.",
        why=f"Namespace {identity.tenant} has no RoleBinding of ClusterRole {TENANT_ROLE} to the gateway's service "
        f"account in {NAMESPACE}; make one if it is a tenant's: {answer.body.get('message', '')}",
    )
