"""Tenants: a namespace, a user (a service account) and a role that says what it may do."""

import asyncio
from datetime import timedelta

from temporalio import activity

from activities.errors import gave_up, refusals_are_final
from activities.heartbeat import heartbeating
from clusters.gateway import tenant_binding
from virtflow.kube import Informer, KubeClient, Object
from virtflow.kube.resources import NAMESPACES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS, VMIRS, VMIS, VMS
from workflows.tenant_models import Tenant, TenantOrder

__all__ = ["Tenants"]

TENANT_VERBS = ["get", "list", "create", "update"]
ACCOUNT_LIMIT = timedelta(seconds=20)
GONE_LIMIT = timedelta(seconds=90)


class Tenants:
    """Acts as the platform's administrator."""

    def __init__(self, kube: KubeClient, namespaces: Informer, accounts: Informer) -> None:
        self._kube = kube
        self._namespaces = namespaces
        self._accounts = accounts

    @activity.defn
    async def create_tenant(self, order: TenantOrder) -> Tenant:
        """Make the tenant's objects, or bring them to this shape: a retry finds what the first try left."""
        user, namespace = f"{order.name}-user", order.namespace
        role = f"{order.name}-operator"
        rules = [{"apiGroups": ["kubevirt.io"], "resources": ["virtualmachines"], "verbs": TENANT_VERBS}]
        binding: Object = {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": user, "namespace": namespace}],
        }

        def named(name: str) -> Object:
            return {"metadata": {"name": name, "labels": order.labels}}

        with refusals_are_final():
            await self._kube.apply(NAMESPACES, named(namespace))
            await asyncio.gather(
                self._kube.apply(SERVICE_ACCOUNTS, named(user), namespace),
                self._kube.apply(ROLES, {**named(role), "rules": rules}, namespace),
                self._kube.apply(ROLE_BINDINGS, tenant_binding(order.labels), namespace),
            )
            # Last: the tenant's own right is what lets it in, and all that it leads to must be there by then.
            await self._kube.apply(ROLE_BINDINGS, {**named(f"{order.name}-binding"), **binding}, namespace)
        # Pods made before the namespace's default account is there are refused.
        try:
            async with asyncio.timeout(ACCOUNT_LIMIT.total_seconds()):
                await self._accounts.wait_for(namespace, "default", lambda account: account is not None)
        except TimeoutError:
            seconds = ACCOUNT_LIMIT.total_seconds()
            raise gave_up(
                f"Namespace {namespace} has no service account `default` {seconds:.0f} s after it was made, and pods "
                f"are refused without it: kube-controller-manager, which makes it, does not keep up or is down."
            ) from None
        return Tenant(order.name, namespace, [user])

    @activity.defn
    async def delete_tenant(self, order: TenantOrder) -> None:
        """Delete the namespace with all that is in it, and wait until it is gone."""
        async with heartbeating():
            with refusals_are_final():
                deleted = await self._kube.delete(NAMESPACES, order.namespace)
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
                raise gave_up(self._why_still_there(order.namespace)) from None

    def _why_still_there(self, name: str) -> str:
        namespace = self._namespaces.get("", name) or {}
        conditions = namespace.get("status", {}).get("conditions", [])
        said = "; ".join(condition["message"] for condition in conditions if condition["status"] == "True")
        seconds = GONE_LIMIT.total_seconds()
        return f"Namespace {name} is not gone {seconds:.0f} s after its deletion: {said or 'no reason given'}"
