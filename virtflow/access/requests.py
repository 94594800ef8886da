"""A cell of the matrix as a request at a door: harmless whatever is answered.

A write is a dry run, and of an object that is not there; what deletes many chooses none, by a label. Where a door
decodes a body before it asks who may, the body is a good one: a refusal must be of the tenant and not of the form.
"""

from dataclasses import dataclass, field
from urllib.parse import quote

from virtflow.access.matrix import WHOLE_CLUSTER, WRITES, Cell
from virtflow.kube.resources import HPAS, PODS, SECRETS, VMIRS, VMIS, VMS, Object, Resource
from workflows.access_models import Door

__all__ = ["NAME", "DoorHttp", "request_at"]

NAME = "access-probe"
"""Of what is asked for: nothing that exists."""
METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETE",
}
TO_ONE = frozenset({"get", "update", "patch", "delete"})
JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"


@dataclass(frozen=True)
class DoorHttp:
    """An HTTP request without its credentials."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: Object | None = None
    content_type: str = JSON


def request_at(door: Door, cell: Cell, name: str = NAME) -> DoorHttp:
    """The cell's request at a door, for the object of this name if it is about one."""
    target, verb = cell.target, cell.verb
    named = name if verb in TO_ONE else ""
    query: dict[str, str] = {}
    if door is Door.GATEWAY:
        parts = (target.resource.plural, named, target.subresource)
        path = "/" + "/".join(quote(part, safe="") for part in parts if part)
        query |= {"allNamespaces": "true"} if cell.place == WHOLE_CLUSTER else {"namespace": cell.place}
    else:
        path = target.resource.path(cell.place or None, named or None, target.subresource or None)
    if verb == "watch":
        query["watch"] = "true"
    if target.subresource:
        # Its dry run is among its options.
        return DoorHttp(METHODS[verb], path, query, {"dryRun": ["All"]})
    if verb in WRITES:
        query["dryRun"] = "All"
    if verb == "deletecollection":
        query["labelSelector"] = f"{NAME}=nothing"
    if verb == "patch":
        return DoorHttp(METHODS[verb], path, query, {"metadata": {"labels": {NAME: ""}}}, MERGE_PATCH)
    body = manifest(target.resource, name) if verb in ("create", "update") else None
    return DoorHttp(METHODS[verb], path, query, body)


def manifest(resource: Resource, name: str) -> Object:
    """An object of this kind that a kube-apiserver accepts."""
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}
    return {**head, **CONTENT[resource]}


DOMAIN: Object = {"devices": {}, "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}
TEMPLATE: Object = {"metadata": {"labels": {"app": NAME}}, "spec": {"domain": DOMAIN}}
REQUESTS: Object = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}}
CONTENT: dict[Resource, Object] = {
    VMS: {"spec": {"runStrategy": "Halted", "template": TEMPLATE}},
    VMIS: {"spec": {"domain": DOMAIN}},
    VMIRS: {"spec": {"replicas": 0, "selector": {"matchLabels": {"app": NAME}}, "template": TEMPLATE}},
    HPAS: {
        "spec": {
            "maxReplicas": 1,
            "scaleTargetRef": {"apiVersion": VMIRS.api_version, "kind": VMIRS.kind, "name": NAME},
        }
    },
    SECRETS: {"type": "Opaque"},
    PODS: {"spec": {"containers": [{"name": "probe", "image": "registry.example/probe", "resources": REQUESTS}]}},
}
