"""The Authorization headers a caller may come with: the tenant's token, and those that must open nothing.

What is forged is made of a real token of the tenant: all of it is as it should be, except the signature. A token that
is wrong in its times alone could only be made with the cluster's own key, which the worker does not have.
"""

import base64
import json
import secrets
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from activities.tokens import FOR_KUBE_APISERVER, Tokens
from workflows.models import Bearer
from workflows.tenant_models import Tenant

__all__ = ["authorization"]


async def authorization(bearer: Bearer, tenant: Tenant, tokens: Tokens) -> str | None:
    """The header's value; None for no header."""
    match bearer:
        case Bearer.NONE:
            return None
        case Bearer.MALFORMED:
            return "Bearer this is no token"
        case Bearer.NOBODY:
            return f"Bearer {secrets.token_urlsafe(48)}"
        case Bearer.OTHER_AUDIENCE:
            return f"Bearer {await tokens.of(tenant, FOR_KUBE_APISERVER)}"
        case Bearer.TENANT:
            return f"Bearer {await tokens.of(tenant)}"
        case _:
            return f"Bearer {forged(bearer, await tokens.of(tenant))}"


def forged(bearer: Bearer, token: str) -> str:
    """Another token of the same claims, without a signature or with one of another key."""
    head, claims = (_decoded(part) for part in token.split(".")[:2])
    if bearer is Bearer.UNSIGNED:
        return f"{_encoded({**head, 'alg': 'none'})}.{_encoded(claims)}."
    signed = f"{_encoded(head)}.{_encoded(claims)}"
    return f"{signed}.{_base64(_signature(head['alg'], signed.encode()))}"


def _signature(algorithm: str, message: bytes) -> bytes:
    """By a key of our own, in the form of the algorithm that the cluster signs with (RFC 7518, 3.3 and 3.4)."""
    key = _own_key(algorithm)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@cache
def _own_key(algorithm: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def _decoded(part: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return decoded


def _encoded(part: dict[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
