"""Tokens of tenants' users, from the TokenRequest API: short-lived, and in this process' memory alone."""

import asyncio
import time
from collections import defaultdict
from datetime import timedelta

from activities.errors import refusals_are_final
from clusters.gateway import AUDIENCE
from virtflow.kube import KubeClient
from workflows.tenant_models import Tenant

__all__ = ["FOR_KUBE_APISERVER", "Tokens"]

LIFETIME = timedelta(minutes=15)
RENEW_BEFORE = timedelta(minutes=5)
FOR_KUBE_APISERVER = ""
"""The audience of a token for which none is asked."""


class Tokens:
    """One token for each user and audience, renewed well before it expires. Many may ask at once.

    Whoever deletes an account has its namespace forgotten.
    """

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._tokens: dict[tuple[str, str, str], tuple[str, float]] = {}
        self._minting: defaultdict[tuple[str, str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of(self, tenant: Tenant, audience: str = AUDIENCE, *, user: str | None = None) -> str:
        """A token of one of the tenant's users, the first if none is named."""
        key = (tenant.namespace, user or tenant.user, audience)
        async with self._minting[key]:
            token, renew_at = self._tokens.get(key, ("", 0.0))
            if time.monotonic() >= renew_at:
                token = await self._mint(*key)
                self._tokens[key] = token, time.monotonic() + (LIFETIME - RENEW_BEFORE).total_seconds()
        return token

    def forget(self, namespace: str) -> None:
        """An account of it is gone: one made again under the same name is another, and these are not its tokens."""
        for key in [key for key in self._tokens if key[0] == namespace]:
            del self._tokens[key]

    async def _mint(self, namespace: str, user: str, audience: str) -> str:
        with refusals_are_final():
            return await self._kube.create_token(namespace, user, LIFETIME, audiences=[audience] if audience else [])
