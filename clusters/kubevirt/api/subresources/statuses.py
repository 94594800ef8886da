"""How virt-api says no to a subresource request: the Status objects of Kubernetes, in Kubernetes' words.

KubeVirt names the kinds in the singular where Kubernetes would say the resource; clients see
`virtualmachine.kubevirt.io "NAME" not found`.
"""

from clusters.kubevirt.api.refusals import Refused
from virtflow.kube import Object
from virtflow.kube.resources import VMS

__all__ = ["VM", "VMI", "bad_request", "conflict", "forbidden", "internal", "not_found", "not_modelled", "too_large"]

VM, VMI = "virtualmachine", "virtualmachineinstance"
NOT_IMPLEMENTED = 501


def not_found(kind: str, name: str) -> Refused:
    return refused(404, "NotFound", f"{qualified(kind, name)} not found", details(kind, name))


def conflict(kind: str, name: str, why: str) -> Refused:
    message = f"Operation cannot be fulfilled on {qualified(kind, name)}: {why}"
    return refused(409, "Conflict", message, details(kind, name))


def forbidden(kind: str, name: str, why: str) -> Refused:
    return refused(403, "Forbidden", f"{qualified(kind, name)} is forbidden: {why}", details(kind, name))


def bad_request(message: str) -> Refused:
    return refused(400, "BadRequest", message)


def too_large(limit: int) -> Refused:
    return refused(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def internal(why: str) -> Refused:
    return refused(500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]})


def not_modelled(subresource: str) -> Refused:
    return refused(NOT_IMPLEMENTED, None, f"{subresource}: the stand-in for KubeVirt does not model this subresource")


def qualified(kind: str, name: str) -> str:
    return f'{kind}.{VMS.group} "{name}"'


def details(kind: str, name: str) -> Object:
    return {"name": name, "group": VMS.group, "kind": kind}


def refused(code: int, reason: str | None, message: str, more: Object | None = None) -> Refused:
    return Refused(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            **({"reason": reason} if reason else {}),
            **({"details": more} if more else {}),
            "code": code,
        }
    )
