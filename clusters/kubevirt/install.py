"""What the stand-in puts into a cluster: KubeVirt's kinds, its webhooks, and the identities of its programs.

Plain objects in the order in which they can be applied, so that any cluster profile that can apply objects can
install it. The names are those of a real KubeVirt: an audit log or a refusal reads the same.
"""

import base64
from dataclasses import dataclass

from clusters.kubevirt.crds import load_crds
from virtflow.kube import Object, Resource
from virtflow.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CRDS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    VALIDATING_WEBHOOKS,
)

__all__ = ["NAMESPACE", "manifests"]

NAMESPACE = "kubevirt"
PROGRAMS = ("kubevirt-apiserver", "kubevirt-controller", "kubevirt-handler")
WEBHOOK_TIMEOUT_SECONDS = 10

NOT_BY_KUBEVIRT = {
    "name": "not-by-kubevirt",
    "expression": "request.operation == 'CREATE' || "
    f"!request.userInfo.username.startsWith('system:serviceaccount:{NAMESPACE}:kubevirt-')",
}

READ = ["get", "list", "watch"]
WRITE = ["update", "patch"]
VMS, VMIS, REPLICA_SETS = (
    "virtualmachines",
    "virtualmachineinstances",
    "virtualmachineinstancereplicasets",
)
RULES: dict[str, list[Object]] = {
    # virt-api asks the cluster for nothing, so its account has no role.
    "kubevirt-controller": [
        {"apiGroups": ["kubevirt.io"], "resources": [VMS, VMIS, REPLICA_SETS], "verbs": READ + WRITE},
        {"apiGroups": ["kubevirt.io"], "resources": [VMIS], "verbs": ["create", "delete"]},
        {
            "apiGroups": ["kubevirt.io"],
            "resources": [
                *(f"{resource}/finalizers" for resource in (VMS, VMIS, REPLICA_SETS)),
                *(f"{resource}/status" for resource in (VMS, REPLICA_SETS)),
                f"{REPLICA_SETS}/scale",
            ],
            "verbs": ["get", *WRITE],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": [*READ, *WRITE, "create", "delete"]},
        {"apiGroups": [""], "resources": ["pods/status", "pods/finalizers"], "verbs": WRITE},
        {"apiGroups": [""], "resources": ["events"], "verbs": [*READ, *WRITE, "create"]},
        {"apiGroups": [""], "resources": ["nodes", "namespaces", "resourcequotas"], "verbs": READ},
        {
            "apiGroups": ["apps"],
            "resources": ["controllerrevisions"],
            "verbs": [*READ, *WRITE, "create", "delete"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": [*READ, *WRITE, "create"]},
    ],
    "kubevirt-handler": [
        {"apiGroups": ["kubevirt.io"], "resources": [VMIS], "verbs": READ + WRITE},
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": READ},
        {"apiGroups": [""], "resources": ["events"], "verbs": [*READ, *WRITE, "create"]},
    ],
}


@dataclass(frozen=True)
class Webhook:
    """One webhook of virt-api: the name a refusal carries, its path, and what it is asked about."""

    name: str
    path: str
    resource: str
    operations: tuple[str, ...] = ("CREATE", "UPDATE")
    spares_kubevirt: bool = False
    """Whether an update by KubeVirt's own programs is not asked about: the answer would be yes, twelve times a VM."""


MUTATORS = (
    Webhook("virtualmachines-mutator", "/virtualmachines-mutate", VMS),
    Webhook("virtualmachineinstances-mutator", "/virtualmachineinstances-mutate", VMIS, spares_kubevirt=True),
)
VALIDATORS = (
    Webhook(
        "virtualmachineinstances-create-validator",
        "/virtualmachineinstances-validate-create",
        VMIS,
        ("CREATE",),
    ),
    Webhook(
        "virtualmachineinstances-update-validator",
        "/virtualmachineinstances-validate-update",
        VMIS,
        ("UPDATE",),
        spares_kubevirt=True,
    ),
    Webhook("virtualmachine-validator", "/virtualmachines-validate", VMS),
    Webhook("virtualmachinereplicaset-validator", "/virtualmachinereplicaset-validate", REPLICA_SETS),
)


def manifests(api_url: str, ca_bundle: bytes) -> list[tuple[Resource, Object]]:
    """Everything to apply, in order.

    `api_url` is where virt-api listens ("https://127.0.0.1:8443"), `ca_bundle` the PEM of the authority that
    signed its certificate. Once the webhooks are in, writes of KubeVirt's kinds fail until virt-api answers; a
    kind is served a moment after its CustomResourceDefinition is applied, when its condition Established is True.
    """
    namespace: Object = {"metadata": {"name": NAMESPACE, "labels": {"kubevirt.io": ""}}}
    accounts: list[Object] = [{"metadata": {"name": name, "namespace": NAMESPACE}} for name in PROGRAMS]
    roles: list[Object] = [{"metadata": {"name": name}, "rules": rules} for name, rules in RULES.items()]
    return [
        (NAMESPACES, namespace),
        *((SERVICE_ACCOUNTS, account) for account in accounts),
        *((CLUSTER_ROLES, role) for role in roles),
        *((CLUSTER_ROLE_BINDINGS, binding(name)) for name in RULES),
        *((CRDS, crd) for crd in load_crds()),
        (MUTATING_WEBHOOKS, configuration("virt-api-mutator", MUTATORS, api_url, ca_bundle)),
        (VALIDATING_WEBHOOKS, configuration("virt-api-validator", VALIDATORS, api_url, ca_bundle)),
    ]


def binding(name: str) -> Object:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    }


def configuration(name: str, webhooks: tuple[Webhook, ...], api_url: str, ca_bundle: bytes) -> Object:
    return {
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{webhook.name}.kubevirt.io",
                "clientConfig": {
                    "url": api_url.rstrip("/") + webhook.path,
                    "caBundle": base64.b64encode(ca_bundle).decode(),
                },
                "rules": [
                    {
                        "apiGroups": ["kubevirt.io"],
                        "apiVersions": ["v1"],
                        "operations": list(webhook.operations),
                        "resources": [webhook.resource],
                    }
                ],
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": WEBHOOK_TIMEOUT_SECONDS,
                "matchConditions": [NOT_BY_KUBEVIRT] if webhook.spares_kubevirt else [],
            }
            for webhook in webhooks
        ],
    }
