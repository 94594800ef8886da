"""What the gateway offers, as one table: its routes, its figures and its OpenAPI document are made of it.

Whatever RBAC would allow beside it cannot be reached through the gateway: no watch, no patch, and nothing that acts
on a whole collection.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from virtflow.kube.resources import HPAS, PODS, SECRETS, VM_ACTIONS, VMIRS, VMIS, VMS, Resource

__all__ = ["ENDPOINTS", "RESOURCES", "Endpoint"]

COLLECTION = {"GET": "list", "POST": "create"}
# Whether a tenant may delete is for RBAC to say: the method is served like the others.
OBJECT = {"GET": "get", "PUT": "update", "DELETE": "delete"}
ACTION = {"PUT": "update"}

RESOURCES = (VMS, VMIS, VMIRS, HPAS, SECRETS, PODS)
ACTIONS = ("start", "stop", "restart")


@dataclass(frozen=True)
class Endpoint:
    """One path, what is kept there, and the verb that each HTTP method has at it."""

    path: str
    resource: Resource
    verbs: Mapping[str, str]
    subresource: str = ""

    @property
    def confidential(self) -> bool:
        """Whether nothing of a body may be quoted in a log: a Secret's values, a pod's environment."""
        return self.resource in (SECRETS, PODS)


ENDPOINTS = (
    *(Endpoint(f"/{resource.plural}", resource, COLLECTION) for resource in RESOURCES),
    *(Endpoint(f"/{resource.plural}/{{name}}", resource, OBJECT) for resource in RESOURCES),
    *(Endpoint(f"/{VMS.plural}/{{name}}/{action}", VM_ACTIONS, ACTION, action) for action in ACTIONS),
)
