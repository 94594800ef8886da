"""The IAM Gateway: who is calling, may they, and then the write at the kube-apiserver in their own name.

It decides nothing by itself. A TokenReview says who holds the token, a SubjectAccessReview whether RBAC lets
them, and the request then goes to the kube-apiserver impersonated, where it is authorized once more: a bug
here can refuse too much, but not grant what RBAC does not.
"""

from clusters.gateway.identity import ACCESS_REVIEW_SUFFIX, AUDIENCE, TOKEN_REVIEW_SUFFIX
from clusters.gateway.install import NAMESPACE, SERVICE_ACCOUNT, manifests

__all__ = [
    "ACCESS_REVIEW_SUFFIX",
    "AUDIENCE",
    "NAMESPACE",
    "SERVICE_ACCOUNT",
    "TOKEN_REVIEW_SUFFIX",
    "manifests",
]
