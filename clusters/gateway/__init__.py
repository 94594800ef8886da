"""The IAM Gateway: who is calling, may they, and then the write at the kube-apiserver in their own name.

It decides nothing by itself. A TokenReview says who holds the token, a SubjectAccessReview whether RBAC lets
them, and the request then goes to the kube-apiserver impersonated, where it is authorized once more: with a bug
here the gateway could take one tenant for another, but be nobody outside the tenants' namespaces. It may act for
the service accounts of those alone that have its RoleBinding (`tenant_binding`).
"""

from clusters.gateway.identity import ACCESS_REVIEW_SUFFIX, AUDIENCE, TOKEN_REVIEW_SUFFIX
from clusters.gateway.install import NAMESPACE, SERVICE_ACCOUNT, TENANT_ROLE, manifests, tenant_binding

__all__ = [
    "ACCESS_REVIEW_SUFFIX",
    "AUDIENCE",
    "NAMESPACE",
    "SERVICE_ACCOUNT",
    "TENANT_ROLE",
    "TOKEN_REVIEW_SUFFIX",
    "manifests",
    "tenant_binding",
]
