"""What the stand-in puts into a cluster: KubeVirt's kinds, its webhooks, and the identities of its programs.

Plain objects in the order in which they can be applied, so that any cluster profile that can apply objects can
install it. The names are those of a real KubeVirt: an audit log or a refusal reads the same.
"""

import base64
from dataclasses import dataclass
from urllib.parse import urlsplit

from clusters.aggregation import aggregated_api
from clusters.kubevirt.crds import load_crds
from virtflow.kube import Object, Resource
from virtflow.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CRDS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    VALIDATING_WEBHOOKS,
)

__all__ = [
    "HANDLER_CLIENT_NAME",
    "HANDLER_NAME",
    "NAMESPACE",
    "SUBRESOURCES",
    "SUBRESOURCE_VERSIONS",
    "WEBHOOK_TIMEOUT_SECONDS",
    "manifests",
]

NAMESPACE = "kubevirt"
SUBRESOURCES, SUBRESOURCE_VERSIONS = "subresources.kubevirt.io", ("v1", "v1alpha3")
"""The API group that virt-api serves itself, and its versions."""

HANDLER_NAME, HANDLER_CLIENT_NAME = "kubevirt.io:system:node:virt-handler", "kubevirt.io:system:client:virt-handler"
"""Common names of the certificates with which virt-handler serves, and virt-api speaks to it."""

PROGRAMS = ("kubevirt-apiserver", "kubevirt-controller", "kubevirt-handler")
WEBHOOK_TIMEOUT_SECONDS = 10
NOT_KUBEVIRTS_OWN_UPDATE: Object = {
    "name": "not-an-update-by-kubevirt",
    "expression": "request.operation != 'UPDATE' || !(request.userInfo.username in ["
    + ", ".join(f"'system:serviceaccount:{NAMESPACE}:{name}'" for name in PROGRAMS)
    + "])",
}
"""virt-api lets KubeVirt's own programs change what they like: to ask it would be two calls for most of the writes in
a virtual machine's life, each answered with yes."""

FOLLOW = ["list", "watch"]
VMS, VMIS, REPLICA_SETS = (
    "virtualmachines",
    "virtualmachineinstances",
    "virtualmachineinstancereplicasets",
)
KINDS = (VMS, VMIS, REPLICA_SETS)
WRITE_EVENTS: Object = {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "create", "patch"]}
RULES: dict[str, list[Object]] = {
    # What subresources.kubevirt.io writes, and what an eviction is judged by.
    "kubevirt-apiserver": [
        {"apiGroups": ["kubevirt.io"], "resources": [VMS, VMIS], "verbs": ["get", "patch"]},
        {"apiGroups": ["kubevirt.io"], "resources": [f"{VMS}/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "delete"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ],
    "kubevirt-controller": [
        {"apiGroups": ["kubevirt.io"], "resources": [VMS], "verbs": ["get", *FOLLOW, "update", "patch"]},
        {"apiGroups": ["kubevirt.io"], "resources": [REPLICA_SETS], "verbs": ["get", *FOLLOW, "update"]},
        {
            "apiGroups": ["kubevirt.io"],
            "resources": [VMIS],
            "verbs": ["get", *FOLLOW, "create", "update", "patch", "delete"],
        },
        # Who makes an object the owner of what blocks its deletion must be allowed to update these.
        {"apiGroups": ["kubevirt.io"], "resources": [f"{kind}/finalizers" for kind in KINDS], "verbs": ["update"]},
        {"apiGroups": ["kubevirt.io"], "resources": [f"{VMS}/status"], "verbs": ["update", "patch"]},
        {"apiGroups": ["kubevirt.io"], "resources": [f"{REPLICA_SETS}/status"], "verbs": ["update"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", *FOLLOW, "create", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": [*FOLLOW, "patch"]},
        {"apiGroups": ["apps"], "resources": ["controllerrevisions"], "verbs": ["get", *FOLLOW, "create", "delete"]},
        WRITE_EVENTS,
    ],
    "kubevirt-handler": [
        {"apiGroups": ["kubevirt.io"], "resources": [VMIS], "verbs": ["get", *FOLLOW, "update"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": FOLLOW},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": [*FOLLOW, "patch"]},
        WRITE_EVENTS,
    ],
}

LEASE = "virt-controller"
"""Which virt-controller leads; in its own namespace."""
LEASE_RULES: list[Object] = [
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [LEASE],
        "verbs": ["get", "update"],
    },
    # Whoever creates has no name yet that a rule could go by.
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
]


@dataclass(frozen=True)
class Webhook:
    """One webhook of virt-api: the name a refusal carries, its path, and what it is asked about."""

    name: str
    path: str
    resource: str
    operations: tuple[str, ...] = ("CREATE", "UPDATE")
    group: str = "kubevirt.io"
    failure_policy: str = "Fail"
    side_effects: str = "None"


MUTATORS = (
    Webhook("virtualmachines-mutator", "/virtualmachines-mutate", VMS),
    Webhook("virtualmachineinstances-mutator", "/virtualmachineinstances-mutate", VMIS),
)
VALIDATORS = (
    # A node is to be drained also while virt-api is down.
    Webhook(
        "virt-launcher-eviction-interceptor",
        "/launcher-eviction-validate",
        "pods/eviction",
        ("*",),
        group="",
        failure_policy="Ignore",
        side_effects="NoneOnDryRun",
    ),
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
        (ROLES, {"metadata": {"name": "kubevirt-controller", "namespace": NAMESPACE}, "rules": LEASE_RULES}),
        (ROLE_BINDINGS, lease_binding("kubevirt-controller")),
        *((CRDS, crd) for crd in load_crds()),
        (MUTATING_WEBHOOKS, configuration("virt-api-mutator", MUTATORS, api_url, ca_bundle)),
        (VALIDATING_WEBHOOKS, configuration("virt-api-validator", VALIDATORS, api_url, ca_bundle)),
        *aggregated_api(
            SUBRESOURCES,
            SUBRESOURCE_VERSIONS,
            service="virt-api",
            namespace=NAMESPACE,
            port=urlsplit(api_url).port or 443,
            ca=ca_bundle,
            priority=(1000, 15),
        ),
    ]


def binding(name: str) -> Object:
    return {"metadata": {"name": name}, **granted("ClusterRole", name)}


def lease_binding(name: str) -> Object:
    return {"metadata": {"name": name, "namespace": NAMESPACE}, **granted("Role", name)}


def granted(kind: str, name: str) -> Object:
    """A role to the account of the same name."""
    return {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
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
                        "apiGroups": [webhook.group],
                        "apiVersions": ["v1"],
                        "operations": list(webhook.operations),
                        "resources": [webhook.resource],
                    }
                ],
                "matchConditions": [NOT_KUBEVIRTS_OWN_UPDATE],
                "admissionReviewVersions": ["v1"],
                "sideEffects": webhook.side_effects,
                "failurePolicy": webhook.failure_policy,
                "timeoutSeconds": WEBHOOK_TIMEOUT_SECONDS,
            }
            for webhook in webhooks
        ],
    }
