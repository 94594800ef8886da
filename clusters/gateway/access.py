"""What is asked of RBAC, and how its no is said."""

from dataclasses import dataclass

from clusters.gateway.status import StatusError
from virtflow.kube import Object, Resource

__all__ = ["Access", "ForbiddenError", "forbidden"]


@dataclass(frozen=True)
class Access:
    """What somebody wants to do. Without a namespace it is meant for all of them: the whole cluster.

    A create has no name, as the kube-apiserver has it: it authorizes before it reads the object.
    """

    verb: str
    resource: Resource
    namespace: str
    name: str = ""
    subresource: str = ""

    @property
    def path(self) -> str:
        """Where at the kube-apiserver."""
        return self.resource.path(self.namespace or None, self.name or None, self.subresource or None)

    @property
    def attributes(self) -> Object:
        """A SubjectAccessReview's `resourceAttributes`."""
        return {
            "namespace": self.namespace,
            "verb": self.verb,
            "group": self.resource.group,
            "version": self.resource.version,
            "resource": self.resource.plural,
            "subresource": self.subresource,
            "name": self.name,
        }


class ForbiddenError(StatusError):
    """RBAC's no."""


def forbidden(user: str, access: Access, reason: str) -> ForbiddenError:
    """403 in the kube-apiserver's words, so that it reads the same whichever of the two refused."""
    group, plural = access.resource.group, access.resource.plural
    kept = f"{plural}.{group}" if group else plural
    asked = f"{plural}/{access.subresource}" if access.subresource else plural
    where = f'in the namespace "{access.namespace}"' if access.namespace else "at the cluster scope"
    message = (
        (f'{kept} "{access.name}"' if access.name else kept)
        + f' is forbidden: User "{user}" cannot {access.verb} resource "{asked}" in API group "{group}" {where}'
        + (f": {reason}" if reason else "")
    )
    details = {"name": access.name, "group": group, "kind": plural}
    return ForbiddenError(403, message, details={key: value for key, value in details.items() if value})
