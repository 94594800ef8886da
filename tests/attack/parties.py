"""Who takes part: tenants, their accounts and what they have, made by the platform's administrator."""

import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from clusters.gateway import AUDIENCE, tenant_binding
from tests.attack.breaches import Account
from virtflow.kube import KubeClient, KubeError, Object, Resource
from virtflow.kube.resources import (
    HPAS,
    NAMESPACES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    VMIRS,
    VMIS,
    VMS,
)

__all__ = ["KINDS", "Objects", "Platform", "machine", "until", "victims_objects"]

T = TypeVar("T")
Objects = dict[tuple[str, str, str], tuple[str, str]]
"""Kind, namespace and name of objects, and each one's uid and resourceVersion."""

KINDS = (VMS, VMIS, VMIRS, HPAS, SECRETS, PODS)
"""All that is offered to tenants."""
TOKEN_LIFETIME = timedelta(hours=1)
PATIENCE = timedelta(seconds=60)

# All that a tenant could be given: what its role does not keep from it, the gateway has to.
EVERYTHING_OFFERED = [
    {"apiGroups": [kind.group], "resources": [kind.plural], "verbs": ["create", "delete", "get", "list", "update"]}
    for kind in KINDS
] + [
    {
        "apiGroups": ["subresources.kubevirt.io"],
        "resources": [f"virtualmachines/{action}" for action in ("start", "stop", "restart")],
        "verbs": ["update"],
    }
]


@dataclass(frozen=True)
class Platform:
    """The administrator, for tests that are no coroutines."""

    portal: BlockingPortal
    kube: KubeClient

    @classmethod
    @contextmanager
    def of(cls, kubeconfig: Path) -> Iterator["Platform"]:
        with start_blocking_portal() as portal:
            kube = portal.call(KubeClient.connect, kubeconfig)
            try:
                yield cls(portal, kube)
            finally:
                portal.call(kube.close)

    def do(self, what: Callable[[KubeClient], Awaitable[T]]) -> T:
        return self.portal.call(what, self.kube)

    @contextmanager
    def namespace(self, prefix: str) -> Iterator[str]:
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        self.create(NAMESPACES, {"metadata": {"name": name}})
        try:
            # Pods made before the namespace has its default account are refused.
            until(lambda: self.found(SERVICE_ACCOUNTS, "default", name))
            yield name
        finally:
            self.do(lambda kube: kube.delete(NAMESPACES, name))

    @contextmanager
    def tenant(self, prefix: str) -> Iterator[Account]:
        """A namespace that the gateway may act in, and an account that may do there all that is offered."""
        with self.namespace(prefix) as namespace:
            account = self.account(Account(namespace, f"{prefix}-user"))
            self.create(ROLE_BINDINGS, tenant_binding({}), namespace)
            role = {"metadata": {"name": "everything"}, "rules": EVERYTHING_OFFERED}
            self.create(ROLES, role, namespace)
            binding = {
                "metadata": {"name": "everything"},
                "roleRef": {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": "everything"},
                "subjects": [{"kind": "Group", "name": f"system:serviceaccounts:{namespace}"}],
            }
            self.create(ROLE_BINDINGS, binding, namespace)
            yield account

    def account(self, account: Account) -> Account:
        body = {"metadata": {"name": account.name}}
        self.create(SERVICE_ACCOUNTS, body, account.namespace)
        return account

    def token(self, account: Account, *, audience: str = AUDIENCE, bound_to: Object | None = None) -> str:
        """One that the TokenRequest API has issued."""
        spec: Object = {"audiences": [audience], "expirationSeconds": int(TOKEN_LIFETIME.total_seconds())}
        if bound_to is not None:
            reference = {key: bound_to[key] for key in ("apiVersion", "kind")}
            metadata = bound_to["metadata"]
            spec["boundObjectRef"] = {**reference, "name": metadata["name"], "uid": metadata["uid"]}
        path = SERVICE_ACCOUNTS.path(account.namespace, account.name, "token")
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.do(lambda kube: kube.request("POST", path, body=body))
        return str(answer["status"]["token"])

    def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        return self.do(lambda kube: kube.create(resource, body, namespace))

    def list(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        return self.do(lambda kube: kube.list(resource, namespace))

    def found(self, resource: Resource, name: str, namespace: str | None) -> Object | None:
        try:
            return self.do(lambda kube: kube.get(resource, name, namespace))
        except KubeError as error:
            if error.code != 404:
                raise
            return None

    def objects(self) -> Objects:
        """Everything of KINDS, in all namespaces."""
        found: Objects = {}
        for resource in KINDS:
            for item in self.list(resource):
                meta = item["metadata"]
                key = (resource.kind, meta["namespace"], meta["name"])
                found[key] = (meta["uid"], meta["resourceVersion"])
        return found


def until(attempt: Callable[[], T | None], within: timedelta = PATIENCE) -> T:
    """The first thing it returns that is something. Raises TimeoutError."""
    deadline = time.monotonic() + within.total_seconds()
    while not (result := attempt()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within}")
        time.sleep(0.1)
    return result


def machine(name: str, **metadata: Any) -> Object:
    """A virtual machine that stays off: a thousand of them cost no more than their writes."""
    domain = {"devices": {}, "resources": {"requests": {"memory": "64Mi"}}}
    return {
        "apiVersion": VMS.api_version,
        "kind": VMS.kind,
        "metadata": {"name": name, **metadata},
        "spec": {"runStrategy": "Halted", "template": {"spec": {"domain": domain}}},
    }


def victims_objects(platform: Platform, namespace: str) -> None:
    """One of each kind that nobody writes to any more once this returns."""
    template = machine("unused")["spec"]["template"]
    labelled = {**template, "metadata": {"labels": {"app": "victim"}}}
    selector = {"matchLabels": {"app": "victim"}}
    vmirs = {"spec": {"replicas": 0, "selector": selector, "template": labelled}}
    target = {"apiVersion": VMIRS.api_version, "kind": VMIRS.kind, "name": "victim"}
    made: list[tuple[Resource, Object]] = [
        (VMS, {"spec": machine("victim")["spec"]}),
        (VMIRS, vmirs),
        (HPAS, {"spec": {"scaleTargetRef": target, "maxReplicas": 3}}),
        (SECRETS, {"stringData": {"password": "the-victims-secret"}}),
        (PODS, {"spec": {"containers": [{"name": "c", "image": "registry.example/c"}]}}),
    ]
    for resource, body in made:
        body["metadata"] = {"name": "victim"}
        platform.create(resource, body, namespace)

    def settled(resource: Resource, holds: Callable[[Object], bool]) -> None:
        until(lambda: holds((platform.found(resource, "victim", namespace) or {}).get("status", {})))

    settled(VMS, lambda status: status.get("printableStatus") == "Stopped")
    settled(PODS, lambda status: status.get("phase") == "Running")
    # A target of no replicas switches the autoscaler off, and it says so once.
    settled(HPAS, lambda status: any(c["type"] == "ScalingActive" for c in status.get("conditions", [])))
