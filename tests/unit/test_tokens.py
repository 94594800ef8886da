"""Tokens are minted once for each user and audience, kept, renewed in time; and what is forged of them is none."""

import asyncio
import base64
import dataclasses
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from activities import bearers
from activities.bearers import authorization
from activities.tokens import FOR_KUBE_APISERVER, LIFETIME, RENEW_BEFORE, Tokens
from clusters.gateway import AUDIENCE
from virtflow.kube import KubeClient
from workflows.models import Bearer
from workflows.tenant_models import Tenant

TENANT = Tenant("tenant-a", "tenant-a-1", ["tenant-a-user", "tenant-a-other"])
CLAIMS = {"aud": [AUDIENCE], "sub": "system:serviceaccount:tenant-a-1:tenant-a-user", "iat": 1, "nbf": 1, "exp": 9}


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def decoded(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=="))


class Mint:
    """Plays the TokenRequest API: each token tells whose and which it is."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.requests: list[tuple[str, str, tuple[str, ...]]] = []
        self.head = {"alg": algorithm, "kid": "the cluster's"}
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def create_token(
        self, namespace: str, account: str, lifetime: timedelta, *, audiences: Sequence[str] = ()
    ) -> str:
        assert lifetime == LIFETIME
        self.requests.append((namespace, account, tuple(audiences)))
        await self.may_answer.wait()
        claims = {**CLAIMS, "jti": str(len(self.requests))}
        return f"{encoded(self.head)}.{encoded(claims)}.{encoded('the signature')}"


def tokens_of(mint: Mint) -> Tokens:
    return Tokens(cast(KubeClient, mint))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one number is what the time is."""
    now = [1000.0]
    monkeypatch.setattr("activities.tokens.time.monotonic", lambda: now[0])
    return now


@pytest.mark.anyio
async def test_each_user_and_audience_has_a_token_of_its_own(clock: list[float]) -> None:
    mint = Mint()
    tokens = tokens_of(mint)
    first = await tokens.of(TENANT)
    others = [
        await tokens.of(TENANT, FOR_KUBE_APISERVER),
        await tokens.of(TENANT, user="tenant-a-other"),
        await tokens.of(Tenant("tenant-a", "tenant-a-2", ["tenant-a-user"])),
    ]
    assert await tokens.of(TENANT) == first
    assert len({first, *others}) == 4
    assert mint.requests == [
        ("tenant-a-1", "tenant-a-user", (AUDIENCE,)),
        ("tenant-a-1", "tenant-a-user", ()),
        ("tenant-a-1", "tenant-a-other", (AUDIENCE,)),
        ("tenant-a-2", "tenant-a-user", (AUDIENCE,)),
    ]


@pytest.mark.anyio
async def test_a_token_is_renewed_before_it_expires(clock: list[float]) -> None:
    tokens = tokens_of(Mint())
    first = await tokens.of(TENANT)
    clock[0] += (LIFETIME - RENEW_BEFORE).total_seconds() - 1
    assert await tokens.of(TENANT) == first
    clock[0] += 1
    assert await tokens.of(TENANT) != first


@pytest.mark.anyio
async def test_what_was_forgotten_is_minted_anew() -> None:
    tokens = tokens_of(Mint())
    elsewhere = dataclasses.replace(TENANT, namespace="tenant-b-1")
    before, kept = await tokens.of(TENANT), await tokens.of(elsewhere)
    tokens.forget(TENANT.namespace)
    assert await tokens.of(TENANT) != before
    assert await tokens.of(elsewhere) == kept


@pytest.mark.anyio
async def test_many_who_ask_at_once_get_one_token() -> None:
    mint = Mint()
    mint.may_answer.clear()
    tokens = tokens_of(mint)
    asking = [asyncio.create_task(tokens.of(TENANT)) for _ in range(20)]
    await asyncio.sleep(0)
    mint.may_answer.set()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert len(mint.requests) == 1


async def parts_of(bearer: Bearer, algorithm: str = "ES256") -> list[str]:
    value = await authorization(bearer, TENANT, tokens_of(Mint(algorithm)))
    assert value is not None
    return value.removeprefix("Bearer ").split(".")


@pytest.mark.anyio
@pytest.mark.parametrize("bearer", [Bearer.FORGED, Bearer.UNSIGNED])
async def test_what_is_forged_differs_in_its_signature_alone(bearer: Bearer) -> None:
    head, claims, signature = await parts_of(bearer)
    assert decoded(claims) == {**CLAIMS, "jti": "1"}
    assert decoded(head)["alg"] == ("none" if bearer is Bearer.UNSIGNED else "ES256")
    assert decoded(head)["kid"] == "the cluster's"
    assert signature != encoded("the signature")
    assert bool(signature) is (bearer is not Bearer.UNSIGNED)


@pytest.mark.anyio
@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_forged_signature_is_a_good_one_of_another_key(algorithm: str) -> None:
    head, claims, signature = await parts_of(Bearer.FORGED, algorithm)
    message, raw = f"{head}.{claims}".encode(), base64.urlsafe_b64decode(signature + "==")

    def verify(own: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
        if isinstance(own, rsa.RSAPrivateKey):
            own.public_key().verify(raw, message, padding.PKCS1v15(), hashes.SHA256())
        else:
            numbers = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
            own.public_key().verify(encode_dss_signature(*numbers), message, ec.ECDSA(hashes.SHA256()))

    verify(bearers._own_key(algorithm))  # noqa: SLF001 - nobody else has it
    stranger = (
        rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
    )
    with pytest.raises(InvalidSignature):
        verify(stranger)


@pytest.mark.anyio
async def test_what_needs_no_token_mints_none() -> None:
    mint = Mint()
    tokens = tokens_of(mint)
    assert await authorization(Bearer.NONE, TENANT, tokens) is None
    made_up = [await authorization(Bearer.NOBODY, TENANT, tokens) for _ in range(2)]
    assert made_up[0] != made_up[1]
    assert await authorization(Bearer.MALFORMED, TENANT, tokens) == "Bearer this is no token"
    assert mint.requests == []


@pytest.mark.anyio
async def test_the_tenants_own_and_the_other_doors() -> None:
    mint = Mint()
    tokens = tokens_of(mint)
    assert await authorization(Bearer.TENANT, TENANT, tokens) == f"Bearer {await tokens.of(TENANT)}"
    other = await authorization(Bearer.OTHER_AUDIENCE, TENANT, tokens)
    assert other == f"Bearer {await tokens.of(TENANT, FOR_KUBE_APISERVER)}"
    assert [audiences for *_, audiences in mint.requests] == [(AUDIENCE,), ()]
