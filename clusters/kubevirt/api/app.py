"""virt-api: the admission webhooks of KubeVirt, as the kube-apiserver calls them.

A client never speaks to it; it is heard through the kube-apiserver, which puts "admission webhook NAME denied the
request" before what is said here. A mutator answers with a JSON patch of whole top-level fields, as KubeVirt's do.
"""

import base64
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from clusters.kubevirt.api.decoding import decode
from clusters.kubevirt.api.mutate import mutate_new_instance, mutate_vm
from clusters.kubevirt.api.refusals import Cause, Refused
from clusters.kubevirt.api.reviews import Asked, review_route
from clusters.kubevirt.api.unmodelled import unmodelled_causes, unmodelled_warnings
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


COMPONENTS = frozenset(
    f"system:serviceaccount:kubevirt:kubevirt-{name}" for name in ("apiserver", "controller", "handler")
)
"""KubeVirt's own users, who may change what nobody else may."""


class User(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    username: str = ""


class AboutObject(Asked):
    """The `request` about an object that is written; what the objects are is not looked at yet."""

    obj: Any = Field(alias="object")
    old_object: Any = None
    user_info: User = User()


class Review:
    """What an AdmissionReview asks. Objects are read when they are looked at: most verdicts need one, some none."""

    def __init__(self, kind: str, new: object, old: object, user: str) -> None:
        self._kind, self._new, self._old = kind, new, old
        self.is_update = old is not None
        self.from_kubevirt = user in COMPONENTS

    @cached_property
    def obj(self) -> Object:
        """The object as it would be stored. Raises `Refused`."""
        return decode(self._kind, self._new)

    @cached_property
    def old(self) -> Object | None:
        """The object as it is stored, on an update. Raises `Refused`."""
        return decode(self._kind, self._old) if self.is_update else None

    def changes(self, obj: Object) -> Object:
        """The top-level fields in which an object differs from what was sent."""
        sent = self._new if isinstance(self._new, dict) else {}
        return {name: value for name, value in obj.items() if value != sent.get(name)}


@dataclass(frozen=True)
class Verdict:
    """What is answered when the object is not refused: fields to be written as a whole, words for the client."""

    changes: Object = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


Judge = Callable[[Review], Verdict]
"""Looks at a review; raises `Refused` to deny it."""


def mutate_virtual_machine(review: Review) -> Verdict:
    if is_going(review.obj):
        return Verdict()
    return Verdict(review.changes(mutate_vm(review.obj, review.old)))


def mutate_instance(review: Review) -> Verdict:
    if not review.is_update:
        return Verdict(review.changes(mutate_new_instance(review.obj)))
    if review.from_kubevirt or review.old is None:
        return Verdict()
    status = review.old.get("status", {})
    return Verdict({} if review.obj.get("status", {}) == status else {"status": status})


def validate_virtual_machine(review: Review) -> Verdict:
    if is_going(review.obj):
        return Verdict()
    spec = review.obj["spec"]
    instance = spec["template"].get("spec", {})
    refuse(vm_causes(review.obj, review.is_update, review.from_kubevirt))
    refuse(unmodelled_causes("spec.template.spec", instance, spec))
    deprecated = (RUNNING_IS_DEPRECATED,) if "running" in spec else ()
    return Verdict(warnings=(*deprecated, *unmodelled_warnings("spec.template.spec", instance)))


def validate_new_instance(review: Review) -> Verdict:
    spec = review.obj["spec"]
    refuse(new_instance_causes(review.obj, review.from_kubevirt))
    refuse(unmodelled_causes("spec", spec))
    return Verdict(warnings=() if review.from_kubevirt else unmodelled_warnings("spec", spec))


def validate_instance_update(review: Review) -> Verdict:
    if not review.from_kubevirt and review.old is not None:
        refuse(instance_update_causes(review.obj, review.old))
    return Verdict()


def validate_replica_set(review: Review) -> Verdict:
    instance = review.obj["spec"]["template"].get("spec", {})
    refuse(replica_set_causes(review.obj))
    refuse(unmodelled_causes("spec.template.spec", instance))
    return Verdict(warnings=unmodelled_warnings("spec.template.spec", instance))


def refuse(causes: Iterable[Cause]) -> None:
    found = list(causes)
    if found:
        raise Refused.for_causes(found)


def is_going(obj: Object) -> bool:
    """An object that is being deleted must still lose its finalizers, whatever else is wrong with it."""
    return "deletionTimestamp" in obj.get("metadata", {})


def webhook(path: str, kind: str, judge: Judge) -> Route:
    async def judged(asked: AboutObject) -> Object:
        return answer(kind, judge, asked.obj, asked.old_object, asked.user_info.username)

    return review_route(path, AboutObject, judged)


def answer(kind: str, judge: Judge, obj: object, old: object, user: str) -> Object:
    """The `response` of an AdmissionReview, without its uid."""
    try:
        verdict = judge(Review(kind, obj, old, user))
    except Refused as refused:
        log.info("%s by %s refused: %s", kind, user, refused)
        return {"allowed": False, "status": refused.status}
    except RecursionError:
        return {"allowed": False, "status": Refused.unreadable("the object is nested too deeply").status}
    response: Object = {"allowed": True, "warnings": list(verdict.warnings)}
    if verdict.changes:
        patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in verdict.changes.items()]
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
    routes=[Route("/healthz", healthz)] + [webhook(path, kind, judge) for path, (kind, judge) in WEBHOOKS.items()]
)
