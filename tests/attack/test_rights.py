"""The gateway's own rights, read from the cluster: they are what its work takes, and nothing else.

Read twice: every binding that names it or a group it is in, resolved to rules; and as the kube-apiserver's authorizer
answers for single things. The first sees what nobody thought to ask for, the second what no rule shows.
"""

import pytest

from clusters.gateway import NAMESPACE, SERVICE_ACCOUNT, TENANT_ROLE
from tests.attack.conftest import Battle
from tests.attack.parties import Platform, until
from virtflow.kube import Object
from virtflow.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    NAMESPACES,
    ROLE_BINDINGS,
    ROLES,
    SUBJECT_ACCESS_REVIEWS,
)

USER = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
GROUPS = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]

Right = tuple[str, str, str, str]
"""Group, resource (or the path of a URL), name and verb."""

OWN = {
    ("authentication.k8s.io", "tokenreviews", "", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "", "create"),
}
IN_TENANTS = {("", "serviceaccounts", "", "impersonate")}
# What Kubernetes gives to everybody who is authenticated (its ClusterRoles system:basic-user, system:discovery,
# system:public-info-viewer, system:service-account-issuer-discovery): questions about oneself, and about the API.
EVERYBODYS_URLS = {
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
    "/version/", "/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks",
    "/openid/v1/jwks/",
}  # fmt: skip
EVERYBODYS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews", "", "create"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "", "create"),
    ("authentication.k8s.io", "selfsubjectreviews", "", "create"),
    *(("", url, "", "get") for url in EVERYBODYS_URLS),
}


def rights_of(rules: list[Object]) -> set[Right]:
    return {
        (group, resource, name, verb)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule.get("apiGroups") or [""]
        for resource in [*rule.get("resources", []), *rule.get("nonResourceURLs", [])]
        for name in rule.get("resourceNames") or [""]
    }


def names_the_gateway(binding: Object) -> bool:
    account = {"kind": "ServiceAccount", "namespace": NAMESPACE, "name": SERVICE_ACCOUNT}
    return any(
        (subject["kind"] == "User" and subject["name"] == USER)
        or (subject["kind"] == "Group" and subject["name"] in GROUPS)
        or {key: subject.get(key) for key in account} == account
        for subject in binding.get("subjects") or []
    )


def rights_in(platform: Platform, namespace: str | None) -> set[Right]:
    """By the bindings of a namespace, or those of the whole cluster."""
    resource = ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS
    rights: set[Right] = set()
    for binding in platform.list(resource, namespace):
        if names_the_gateway(binding):
            reference = binding["roleRef"]
            roles = CLUSTER_ROLES if reference["kind"] == CLUSTER_ROLES.kind else ROLES
            role = platform.found(roles, reference["name"], namespace) or {}
            rights |= rights_of(role.get("rules") or [])
    return rights


def test_over_the_whole_cluster_it_may_ask_for_reviews_and_nothing_else(platform: Platform) -> None:
    assert rights_in(platform, None) - EVERYBODYS == OWN


def test_in_a_tenants_namespace_it_may_be_its_accounts_and_elsewhere_nothing(
    battle: Battle, platform: Platform
) -> None:
    tenants = {
        binding["metadata"]["namespace"]
        for binding in platform.list(ROLE_BINDINGS)
        if binding["roleRef"]["name"] == TENANT_ROLE
    }
    assert {battle.attacker.namespace, battle.victim.namespace} <= tenants
    assert not tenants & {"kube-system", "kube-public", "kube-node-lease", "default", "kubevirt", NAMESPACE}
    for namespace in platform.list(NAMESPACES):
        name = namespace["metadata"]["name"]
        assert rights_in(platform, name) == (IN_TENANTS if name in tenants else set()), name


def may(
    platform: Platform, verb: str, resource: str, *, namespace: str = "", name: str = "", group: str = ""
) -> bool:
    """As the authorizer answers for the gateway's account with all its groups."""
    plural, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
        "namespace": namespace,
        "name": name,
    }
    spec = {"user": USER, "groups": GROUPS, "resourceAttributes": attributes}
    body = {"apiVersion": SUBJECT_ACCESS_REVIEWS.api_version, "kind": SUBJECT_ACCESS_REVIEWS.kind, "spec": spec}
    answer = platform.do(lambda kube: kube.request("POST", SUBJECT_ACCESS_REVIEWS.path(), body=body))
    return bool(answer["status"]["allowed"])


RBAC = "rbac.authorization.k8s.io"
SYSTEM = ("kube-system", "kubevirt", NAMESPACE, "default")
DANGEROUS = [
    *(("impersonate", "users", "", "", name) for name in ("", "system:admin", "virtflow-admin")),
    *(("impersonate", "groups", "", "", name) for name in ("", "system:masters", "system:authenticated")),
    ("impersonate", "uids", "authentication.k8s.io", "", ""),
    ("impersonate", "userextras/scopes", "authentication.k8s.io", "", ""),
    ("impersonate", "serviceaccounts", "", "", ""),
    *(("impersonate", "serviceaccounts", "", namespace, name) for namespace in SYSTEM for name in ("", "default")),
    *(
        (verb, "secrets", "", namespace, "")
        for verb in ("get", "list", "watch", "create", "delete")
        for namespace in ("", *SYSTEM)
    ),
    *(("create", "serviceaccounts/token", "", namespace, "default") for namespace in ("", *SYSTEM)),
    *((verb, "clusterroles", RBAC, "", "") for verb in ("bind", "escalate", "create", "update", "patch")),
    *((verb, "roles", RBAC, "kube-system", "") for verb in ("bind", "escalate", "create")),
    *(("create", bindings, RBAC, "kube-system", "") for bindings in ("clusterrolebindings", "rolebindings")),
    *((verb, "certificatesigningrequests/approval", "certificates.k8s.io", "", "") for verb in ("update", "patch")),
    ("approve", "signers", "certificates.k8s.io", "", "kubernetes.io/kube-apiserver-client"),
    *((verb, "*", "*", "", "") for verb in ("*", "get", "list", "create", "delete")),
    *((verb, "nodes/proxy", "", "", "") for verb in ("get", "create")),
    *((verb, "pods/exec", "", "kube-system", "") for verb in ("get", "create")),
    ("create", "pods", "", "kube-system", ""),
    *((verb, "virtualmachines", "kubevirt.io", "", "") for verb in ("get", "list", "create", "update", "delete")),
    ("update", "mutatingwebhookconfigurations", "admissionregistration.k8s.io", "", ""),
    ("update", "apiservices", "apiregistration.k8s.io", "", ""),
    ("create", "namespaces", "", "", ""),
    ("get", "configmaps", "", "kube-system", "extension-apiserver-authentication"),
]


@pytest.mark.parametrize(("verb", "resource", "group", "namespace", "name"), DANGEROUS)
def test_what_is_dangerous_it_may_not(
    platform: Platform, verb: str, resource: str, group: str, namespace: str, name: str
) -> None:
    assert not may(platform, verb, resource, group=group, namespace=namespace, name=name)


def test_not_even_in_a_tenants_namespace(battle: Battle, platform: Platform) -> None:
    """There it has no right of its own to any object: it borrows the tenant's."""
    namespace = battle.victim.namespace
    assert may(platform, "impersonate", "serviceaccounts", namespace=namespace, name=battle.victim.name)
    for verb in ("get", "list", "create", "update", "delete"):
        assert not may(platform, verb, "virtualmachines", group="kubevirt.io", namespace=namespace)
        assert not may(platform, verb, "secrets", namespace=namespace)
    assert not may(platform, "create", "serviceaccounts/token", namespace=namespace)
    assert not may(platform, "impersonate", "users", namespace=namespace)


def test_a_namespace_that_is_deleted_takes_the_right_with_it(platform: Platform) -> None:
    with platform.tenant("leaving") as account:
        assert may(platform, "impersonate", "serviceaccounts", namespace=account.namespace)

    until(lambda: not may(platform, "impersonate", "serviceaccounts", namespace=account.namespace))
