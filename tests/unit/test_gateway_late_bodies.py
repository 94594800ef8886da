"""Whoever is let in may take their time with the body: they are asked again when it is there."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator

import pytest

from tests.unit.gateway_support import REVIEWS, TENANT, VM, Setup, is_status

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("is_still_good", [True, False])
async def test_a_token_must_be_good_when_the_body_is_there(gateway: Setup, is_still_good: bool) -> None:
    # Its review is never used again: its end, as this machine's clock has it, is over.
    token = f"e30.{urlsafe_b64encode(json.dumps({'exp': 1}).encode()).decode().rstrip('=')}.e30"
    gateway.fake.users[token] = TENANT

    async def dripping() -> AsyncIterator[bytes]:
        body = json.dumps(VM).encode()
        yield body[:5]
        assert [request.path for request in gateway.fake.requests] == [REVIEWS[0]]
        if not is_still_good:
            del gateway.fake.users[token]
        yield body[5:]

    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    response = await gateway.http.post("/virtualmachines", content=dripping(), headers=headers)
    asked = gateway.fake.requests
    assert [request.path for request in asked[:2]] == [REVIEWS[0]] * 2
    assert gateway.lines()[0]["token_review"] == asked[1].headers["Audit-ID"] != asked[0].headers["Audit-ID"]
    if is_still_good:
        assert response.status_code == 200
    else:
        assert is_status(response, 401, "Unauthorized")
        assert len(asked) == 2
