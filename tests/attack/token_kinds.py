"""Every kind of token that is none: how it is made of a good one, and what the operator reads of it."""

import json
import time
from collections.abc import Callable

from tests.attack.forging import Forger, encoded
from virtflow.kube import Object

__all__ = ["INVALID", "KINDS", "NO_TOKEN", "now"]

Forge = Callable[[Forger], str]
INVALID = "invalid bearer token"
NO_TOKEN = "there is no bearer token"
PRIMITIVE = "error in cryptographic primitive"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def now() -> int:
    return int(time.time())


# The kube-apiserver allows for clocks that differ by a minute.
GENUINELY_WRONG: dict[str, tuple[Forge, str]] = {
    "expired": (lambda f: f.genuine(iat=now() - 900, nbf=now() - 900, exp=now() - 120), "token has expired"),
    "expired long ago": (lambda f: f.genuine(exp=1), "token has expired"),
    "never valid": (lambda f: f.genuine(exp=now() - 120, nbf=now() + 900), "not valid yet|has expired"),
    "not yet valid": (lambda f: f.genuine(nbf=now() + 900, exp=now() + 1800), "token is not valid yet"),
    "issued in the future": (lambda f: f.genuine(iat=now() + 900, exp=now() + 1800), "issued in the future"),
    "for another audience": (lambda f: f.genuine(aud=["other"]), "audiences"),
    "for the kube-apiserver": (lambda f: f.genuine(aud=[ISSUER]), "audiences"),
    "for nobody": (lambda f: f.genuine(aud=None), "audiences"),
    "for a part of the name": (lambda f: f.genuine(aud=["iam-gateway"]), "audiences"),
    "by another issuer": (lambda f: f.genuine(iss="https://issuer.example"), INVALID),
    "without an issuer": (lambda f: f.genuine(iss=None), INVALID),
    "without an account": (lambda f: f.genuine(**{"kubernetes.io": {}}), "invalid|not found"),
    "without private claims": (lambda f: f.genuine(**{"kubernetes.io": None}), "invalid|not found"),
    "of an account that never was": (
        lambda f: f.genuine(**{"kubernetes.io": account_claims(f, name="x")}),
        "not found",
    ),
    "of another uid": (lambda f: f.genuine(**{"kubernetes.io": account_claims(f, uid="x")}), "UID"),
    "of another namespace": (
        lambda f: f.genuine(**{"kubernetes.io": {**f.claims["kubernetes.io"], "namespace": "kube-system"}}),
        "not found|sub",
    ),
    "of another key": (lambda f: f.signed(f.clusters_key, {**f.header, "kid": "x"}, f.claims), INVALID),
}


def account_claims(forger: Forger, **changes: str) -> Object:
    claims = forger.claims["kubernetes.io"]
    return {**claims, "serviceaccount": {**claims["serviceaccount"], **changes}}


def unsigned(algorithm: str) -> Forge:
    return lambda forger: forger.unsigned(algorithm)


def relabelled(algorithm: str) -> Forge:
    return lambda forger: forger.unsigned(algorithm, forger.token.split(".")[2])


FORGED: dict[str, tuple[Forge, str]] = {
    "forged": (lambda f: f.forged(), PRIMITIVE),
    "forged for kube-system": (lambda f: f.forged(sub="system:serviceaccount:kube-system:default"), PRIMITIVE),
    "without a key's id": (lambda f: f.forged({"kid": None}), INVALID),
    "with a path for a key": (lambda f: f.forged({"kid": "../../../../dev/null"}), INVALID),
    "with a query for a key": (lambda f: f.forged({"kid": "' OR 1=1 --"}), INVALID),
    "with its own key inside": (lambda f: f.forged({"jwk": own_jwk(f)}), INVALID),
    "with a key's address": (lambda f: f.forged({"jku": "http://127.0.0.1:1/jwks"}), INVALID),
    "with a certificate": (lambda f: f.forged({"x5c": ["MII"], "x5u": "http://127.0.0.1:1/"}), INVALID),
    "of huge claims": (lambda f: f.forged(x="a" * 6000), INVALID),
    "of duplicate claims": (
        lambda f: f.signed(f.own_key, f.header, json.dumps(f.claims).encode()[:-1] + b', "sub": "system:admin"}'),
        INVALID,
    ),
    "of deep claims": (lambda f: f.signed(f.own_key, f.header, b'{"a":' * 1500), INVALID),
    "of claims that are no object": (lambda f: f.signed(f.own_key, f.header, b"[]"), INVALID),
    "of no claims": (lambda f: f.signed(f.own_key, f.header, b""), INVALID),
    "of empty numbers": (lambda f: f.unsigned("ES256", encoded(bytes(64))), INVALID),
    "of the signature of another": (
        lambda f: f"{f.message(f.header, {**f.claims, 'sub': 'system:admin'})}.{f.token.split('.')[2]}",
        INVALID,
    ),
    **{
        f"alg {algorithm!r}": (unsigned(algorithm), f"{INVALID}|{NO_TOKEN}")
        for algorithm in ("none", "None", "NONE", "nOnE", "", "null")
    },
    **{
        f"alg {algorithm} of an ES256 signature": (relabelled(algorithm), INVALID)
        for algorithm in ("none", "RS256", "ES384", "ES512", "PS256", "EdDSA", "HS256", "es256")
    },
}


def own_jwk(forger: Forger) -> Object:
    numbers = forger.own_key.public_key().public_numbers()
    x, y = (encoded(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


MALFORMED: dict[str, tuple[Forge, str]] = {
    "one part of three": (lambda f: f.token.split(".")[1], INVALID),
    "two parts": (lambda f: f.token.rpartition(".")[0], INVALID),
    "four parts": (lambda f: f.token + ".e30", INVALID),
    "parts in another order": (lambda f: ".".join(reversed(f.token.split("."))), INVALID),
    "only dots": (lambda f: "..", INVALID),
    "truncated by one": (lambda f: f.token[:-1], INVALID),
    "truncated to half": (lambda f: f.token[: len(f.token) // 2], INVALID),
    "with padding": (lambda f: f.token + "==", INVALID),
    "in upper case": (lambda f: f.token.upper(), INVALID),
    "percent-encoded": (lambda f: f.token.replace(".", "%2E"), NO_TOKEN),
    "with a space": (lambda f: f.token[:40] + " " + f.token[40:], NO_TOKEN),
    "with a tab": (lambda f: f.token[:40] + "\t" + f.token[40:], NO_TOKEN),
    "with a no-break space": (lambda f: f.token[:40] + "\u00a0" + f.token[40:], NO_TOKEN),
    "in quotes": (lambda f: f'"{f.token}"', NO_TOKEN),
    "with a comment": (lambda f: f"{f.token} (mine)", NO_TOKEN),
    "with the scheme twice": (lambda f: f"Bearer {f.token}", NO_TOKEN),
    "nothing": (lambda f: "", NO_TOKEN),
    "in another script": (lambda f: f.token.replace("a", "\u0430"), NO_TOKEN),
}

KINDS = {**GENUINELY_WRONG, **FORGED, **MALFORMED}
