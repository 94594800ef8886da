"""Tenants: a namespace, users (service accounts), a role that says what they may do, a quota and limits.

A quota holds nobody before kube-controller-manager has taken it up: the kube-apiserver lets through whatever comes.
And where its bounds are known but not what is used of them, it refuses whatever comes. So a tenant is there when its
quota is in force.
"""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta

from temporalio import activity

from activities.errors import gave_up, refusals_are_final
from activities.heartbeat import heartbeating
from activities.tokens import Tokens
from clusters.gateway import tenant_binding
from virtflow.kube import Informer, KubeClient, Object, Resource
from virtflow.kube.resources import (
    LIMIT_RANGES,
    NAMESPACES,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    VMIRS,
    VMIS,
    VMS,
)
from virtflow.leftovers import what_holds
from workflows.tenant_models import Tenant, TenantOrder

__all__ = ["Tenants"]

ACCOUNT_LIMIT = timedelta(seconds=20)
QUOTA_LIMIT = timedelta(seconds=60)
"""kube-controller-manager looks for new kinds every 30 s, and counts one that it did not know at its next full round:
every 10 s on a local cluster, every 5 minutes elsewhere."""
GONE_LIMIT = timedelta(seconds=90)


class Tenants:
    """Acts as the platform's administrator."""

    def __init__(
        self, kube: KubeClient, tokens: Tokens, namespaces: Informer, accounts: Informer, quotas: Informer
    ) -> None:
        self._kube = kube
        self._tokens = tokens
        self._namespaces = namespaces
        self._accounts = accounts
        self._quotas = quotas

    @activity.defn
    async def create_tenant(self, order: TenantOrder) -> Tenant:
        """Make the tenant's objects, or bring them to this shape: what a first try or another order has left goes."""
        async with heartbeating():
            return await self.make(order)

    async def make(self, order: TenantOrder) -> Tenant:
        """The same for who is no activity."""
        namespace = order.namespace
        tenant = Tenant(order.name, namespace, [f"{order.name}-{user}" for user in order.spec.users], order.spec.role)
        was_there = self._namespaces.get("", namespace) is not None
        with refusals_are_final():
            await self._kube.apply(NAMESPACES, _named(namespace, order))
            await asyncio.gather(
                *(self._kube.apply(SERVICE_ACCOUNTS, _named(user, order), namespace) for user in tenant.users),
                self._kube.apply(ROLES, _role(order), namespace),
                self._kube.apply(ROLE_BINDINGS, tenant_binding(order.labels), namespace),
                *self._bounds(order),
                *([self._remove_what_is_no_more(order, tenant)] if was_there else []),
            )
        await asyncio.gather(self._account_is_there(namespace), self._quota_is_in_force(order))
        with refusals_are_final():
            # Last: the tenant's own right is what lets it in, and all that it leads to must be there by then.
            await self._kube.apply(ROLE_BINDINGS, _binding(order, tenant), namespace)
        return tenant

    def _bounds(self, order: TenantOrder) -> list[Awaitable[None]]:
        bounds: list[Awaitable[None]] = []
        if order.spec.quota:
            bounds.append(self._apply_quota(order))
        if order.spec.limits:
            limits = {**_named(_limits_name(order), order), "spec": {"limits": order.spec.limits}}
            bounds.append(self._apply(LIMIT_RANGES, limits, order.namespace))
        return bounds

    async def _apply(self, resource: Resource, body: Object, namespace: str) -> None:
        await self._kube.apply(resource, body, namespace)

    async def _apply_quota(self, order: TenantOrder) -> None:
        quota = {**_named(_quota_name(order), order), "spec": {"hard": order.spec.quota}}
        # Observed: a copy that lags would call the one before this in force.
        self._quotas.observe(await self._kube.apply(RESOURCE_QUOTAS, quota, order.namespace))

    async def _remove_what_is_no_more(self, order: TenantOrder, tenant: Tenant) -> None:
        """The users and bounds of an earlier order that this one does not name."""
        if not order.spec.quota:
            await self._kube.delete(RESOURCE_QUOTAS, _quota_name(order), order.namespace)
        if not order.spec.limits:
            await self._kube.delete(LIMIT_RANGES, _limits_name(order), order.namespace)
        for account in await self._kube.list(SERVICE_ACCOUNTS, order.namespace):
            name = account["metadata"]["name"]
            if name.startswith(f"{order.name}-") and name not in tenant.users:
                await self._kube.delete(SERVICE_ACCOUNTS, name, order.namespace)
        self._tokens.forget(order.namespace)

    async def _account_is_there(self, namespace: str) -> None:
        """Pods made before the namespace's default account is there are refused."""
        try:
            async with asyncio.timeout(ACCOUNT_LIMIT.total_seconds()):
                await self._accounts.wait_for(namespace, "default", lambda account: account is not None)
        except TimeoutError:
            seconds = ACCOUNT_LIMIT.total_seconds()
            raise gave_up(
                f"Namespace {namespace} has no service account `default` {seconds:.0f} s after it was made, and pods "
                f"are refused without it: kube-controller-manager, which makes it, does not keep up or is down."
            ) from None

    async def _quota_is_in_force(self, order: TenantOrder) -> None:
        if not order.spec.quota:
            return
        name = _quota_name(order)
        try:
            async with asyncio.timeout(QUOTA_LIMIT.total_seconds()):
                await self._quotas.wait_for(order.namespace, name, lambda quota: _uncounted(quota) == [])
        except TimeoutError:
            missing = _uncounted(self._quotas.get(order.namespace, name)) or list(order.spec.quota)
            seconds = QUOTA_LIMIT.total_seconds()
            raise gave_up(
                f"Quota {order.namespace}/{name} is not in force after {seconds:.0f} s: nobody has counted "
                f"{', '.join(missing)}. Either there is no such resource, and the tenant's file means another, or "
                f"kube-controller-manager, which counts, is down."
            ) from None

    @activity.defn
    async def delete_tenant(self, order: TenantOrder) -> None:
        """Delete the namespace with all that is in it, and wait until it is gone."""
        async with heartbeating():
            with refusals_are_final():
                deleted = await self._kube.delete(NAMESPACES, order.namespace)
                self._tokens.forget(order.namespace)
                if deleted is None:
                    return
                # Kubernetes lets five seconds pass before it looks into a namespace that is deleted, and as many
                # again if something in there is still on its way out: so the machines are sent ahead meanwhile.
                # Nothing can be made in there any more, so no controller puts back what another kind's deletion took.
                await asyncio.gather(
                    *(self._kube.delete_all(resource, order.namespace) for resource in (VMIRS, VMS, VMIS))
                )
            # The copy may lag and not have the namespace at all yet: it must not pass for one that is gone.
            self._namespaces.observe(deleted)
            try:
                async with asyncio.timeout(GONE_LIMIT.total_seconds()):
                    await self._namespaces.wait_for("", order.namespace, lambda namespace: namespace is None)
            except TimeoutError:
                namespace = self._namespaces.get("", order.namespace) or deleted
                seconds = GONE_LIMIT.total_seconds()
                raise gave_up(
                    f"Namespace {order.namespace} is not gone {seconds:.0f} s after its deletion: "
                    f"{await what_holds(self._kube, namespace)}"
                ) from None


def _named(name: str, order: TenantOrder) -> Object:
    return {"metadata": {"name": name, "labels": order.labels}}


def _quota_name(order: TenantOrder) -> str:
    return f"{order.name}-quota"


def _limits_name(order: TenantOrder) -> str:
    return f"{order.name}-limits"


def _role_name(order: TenantOrder) -> str:
    return f"{order.name}-operator"


def _role(order: TenantOrder) -> Object:
    rules = [
        {"apiGroups": rule.api_groups, "resources": rule.resources, "verbs": rule.verbs} for rule in order.spec.role
    ]
    return {**_named(_role_name(order), order), "rules": rules}


def _binding(order: TenantOrder, tenant: Tenant) -> Object:
    subjects = [{"kind": "ServiceAccount", "name": user, "namespace": order.namespace} for user in tenant.users]
    return {
        **_named(f"{order.name}-binding", order),
        "roleRef": {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": _role_name(order)},
        "subjects": subjects,
    }


def _uncounted(quota: Object | None) -> list[str]:
    """What of a quota is not in force: its bound is not known yet, or what is used of it."""
    if quota is None:
        return ["all"]
    wanted, status = quota["spec"]["hard"], quota.get("status", {})
    hard, used = status.get("hard", {}), status.get("used", {})
    return [resource for resource, bound in wanted.items() if hard.get(resource) != bound or resource not in used]
