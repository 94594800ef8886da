"""virt-api: the admission webhooks of KubeVirt, as the kube-apiserver calls them.

A client never speaks to it; it is heard through the kube-apiserver, which puts "admission webhook NAME denied the
request" before what is said here. A mutator answers with a JSON patch of whole top-level fields, as KubeVirt's do.
"""

import base64
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from clusters.kubevirt.api.decoding import decode
from clusters.kubevirt.api.mutate import mutate_instance_update, mutate_new_instance, mutate_vm
from clusters.kubevirt.api.refusals import Cause, Refused
from clusters.kubevirt.api.validate import (
    instance_update_causes,
    new_instance_causes,
    replica_set_causes,
    vm_causes,
)
from virtflow.kube import Object

__all__ = ["app"]

log = logging.getLogger(__name__)

RUNNING_IS_DEPRECATED = "spec.running is deprecated, please use spec.runStrategy instead."


@dataclass(frozen=True)
class Review:
    """What an AdmissionReview asks, decoded; `old` is there on an update."""

    obj: Object
    old: Object | None
    user: str


@dataclass(frozen=True)
class Verdict:
    """What is answered when the object is not refused."""

    obj: Object
    warnings: tuple[str, ...] = ()


Judge = Callable[[Review], Verdict]
"""Looks at a review; raises `Refused` to deny it."""


def mutate_virtual_machine(review: Review) -> Verdict:
    if is_going(review.obj):
        return Verdict(review.obj)
    return Verdict(mutate_vm(review.obj, review.old))


def mutate_instance(review: Review) -> Verdict:
    if review.old is None:
        return Verdict(mutate_new_instance(review.obj))
    return Verdict(mutate_instance_update(review.obj, review.old, review.user))


def validate_virtual_machine(review: Review) -> Verdict:
    if is_going(review.obj):
        return Verdict(review.obj)
    refuse(vm_causes(review.obj))
    return Verdict(review.obj, (RUNNING_IS_DEPRECATED,) if "running" in review.obj["spec"] else ())


def validate_new_instance(review: Review) -> Verdict:
    refuse(new_instance_causes(review.obj, review.user))
    return Verdict(review.obj)


def validate_instance_update(review: Review) -> Verdict:
    if review.old is not None:
        refuse(instance_update_causes(review.obj, review.old, review.user))
    return Verdict(review.obj)


def validate_replica_set(review: Review) -> Verdict:
    refuse(replica_set_causes(review.obj))
    return Verdict(review.obj)


def refuse(causes: Iterable[Cause]) -> None:
    found = list(causes)
    if found:
        raise Refused.for_causes(found)


def is_going(obj: Object) -> bool:
    """An object that is being deleted must still lose its finalizers, whatever else is wrong with it."""
    return "deletionTimestamp" in obj.get("metadata", {})


def webhook(kind: str, judge: Judge) -> Callable[[Request], Any]:
    """The endpoint of one webhook."""

    async def endpoint(request: Request) -> Response:
        try:
            asked = json.loads(await request.body())["request"]
            uid, obj, old = asked["uid"], asked["object"], asked.get("oldObject")
            user = asked.get("userInfo", {}).get("username", "")
            if not isinstance(uid, str) or not isinstance(user, str):
                raise TypeError("uid and username are strings")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return PlainTextResponse(f"This is no AdmissionReview that virt-api can read: {error!r}", 400)
        return JSONResponse(
            {
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "response": {"uid": uid, **answer(kind, judge, obj, old, user)},
            }
        )

    return endpoint


def answer(kind: str, judge: Judge, obj: object, old: object, user: str) -> Object:
    """The `response` of an AdmissionReview, without its uid."""
    try:
        decoded = decode(kind, obj)
        verdict = judge(Review(decoded, None if old is None else decode(kind, old), user))
    except Refused as refused:
        log.info("%s by %s refused: %s", kind, user, refused)
        return {"allowed": False, "status": refused.status}
    except RecursionError:
        return {"allowed": False, "status": Refused.unreadable("the object is nested too deeply").status}
    response: Object = {"allowed": True, "warnings": list(verdict.warnings)}
    patch = [
        {"op": "add", "path": f"/{name}", "value": value}
        for name, value in verdict.obj.items()
        if value != decoded.get(name)
    ]
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
    return response


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


WEBHOOKS: dict[str, tuple[str, Judge]] = {
    "/virtualmachines-mutate": ("VirtualMachine", mutate_virtual_machine),
    "/virtualmachineinstances-mutate": ("VirtualMachineInstance", mutate_instance),
    "/virtualmachines-validate": ("VirtualMachine", validate_virtual_machine),
    "/virtualmachineinstances-validate-create": ("VirtualMachineInstance", validate_new_instance),
    "/virtualmachineinstances-validate-update": ("VirtualMachineInstance", validate_instance_update),
    "/virtualmachinereplicaset-validate": ("VirtualMachineInstanceReplicaSet", validate_replica_set),
}

app = Starlette(
    routes=[Route("/healthz", healthz)]
    + [Route(path, webhook(kind, judge), methods=["POST"]) for path, (kind, judge) in WEBHOOKS.items()]
)
