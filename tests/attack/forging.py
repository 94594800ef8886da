"""Tokens that were never issued: signed by whatever key, with whatever header and claims."""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

__all__ = ["Forger", "decoded", "encoded"]

Claims = dict[str, Any]


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@dataclass(frozen=True)
class Forger:
    """Has a good token to begin with, a key of its own, and, so that a test can be sure that nothing but what it
    changed is wrong, the cluster's own key."""

    token: str
    clusters_key: ec.EllipticCurvePrivateKey
    own_key: ec.EllipticCurvePrivateKey

    @classmethod
    def with_key(cls, token: str, file: Path) -> "Forger":
        key = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(token, key, ec.generate_private_key(ec.SECP256R1()))

    @property
    def header(self) -> Claims:
        header: Claims = json.loads(decoded(self.token.split(".")[0]))
        return header

    @property
    def claims(self) -> Claims:
        claims: Claims = json.loads(decoded(self.token.split(".")[1]))
        return claims

    def genuine(self, **claims: Any) -> str:
        """Signed by the cluster; a claim of None is left out."""
        changed = {key: value for key, value in {**self.claims, **claims}.items() if value is not None}
        return self.signed(self.clusters_key, self.header, changed)

    def forged(self, header: Claims | None = None, **claims: Any) -> str:
        """Signed by nobody who may."""
        return self.signed(self.own_key, {**self.header, **(header or {})}, {**self.claims, **claims})

    def signed(self, key: ec.EllipticCurvePrivateKey, header: Claims, claims: Claims | bytes) -> str:
        message = self.message(header, claims)
        r, s = decode_dss_signature(key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{message}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def hashed(self, secret: bytes, algorithm: str = "HS256") -> str:
        """Signed with a secret that everybody knows, for who lets the token choose how it is checked."""
        message = self.message({**self.header, "alg": algorithm}, self.claims)
        digest = getattr(hashlib, f"sha{algorithm.removeprefix('HS')}")
        return f"{message}.{encoded(hmac.new(secret, message.encode(), digest).digest())}"

    def unsigned(self, algorithm: str, signature: str = "") -> str:
        return f"{self.message({**self.header, 'alg': algorithm}, self.claims)}.{signature}"

    def message(self, header: Claims, claims: Claims | bytes) -> str:
        body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        return f"{encoded(json.dumps(header).encode())}.{encoded(body)}"
