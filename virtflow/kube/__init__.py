"""Talking to a kube-apiserver: requests, and live copies of what it holds."""

from virtflow.kube.client import NO_ANSWER, KubeClient, KubeError, Response, describe
from virtflow.kube.informer import Informer, Key
from virtflow.kube.resources import Object, Resource

__all__ = [
    "NO_ANSWER",
    "Informer",
    "Key",
    "KubeClient",
    "KubeError",
    "Object",
    "Resource",
    "Response",
    "describe",
]
