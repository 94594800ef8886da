"""What is done for each subresource: read what is there, judge, write.

A refusal is raised as a Status of Kubernetes; success has no body, and is a 202 where virt-controller has yet to act.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from clusters.kubevirt.api.refusals import Refused
from clusters.kubevirt.api.subresources import instances, lifecycle
from clusters.kubevirt.api.subresources.access import Target
from clusters.kubevirt.api.subresources.discovery import SUBRESOURCES
from clusters.kubevirt.api.subresources.nodes import Nodes
from clusters.kubevirt.api.subresources.options import (
    PauseOptions,
    RestartOptions,
    StartOptions,
    StopOptions,
    read_options,
)
from clusters.kubevirt.api.subresources.statuses import VM, VMI, internal, not_found, not_modelled
from clusters.kubevirt.objects import LAUNCHERS
from virtflow.kube import NO_ANSWER, KubeClient, KubeError, Object, Resource, describe
from virtflow.kube.resources import PODS, VMIS, VMS

__all__ = ["Actions"]

FORCED_GRACE_SECONDS = 1
"""The shortest that is safe: 0 would take the pod's object away while its processes may still run."""

Action = Callable[[Target, bytes], Awaitable[Response]]
"""Carries out what is asked, with the request's body. Raises `Refused`."""


class Actions:
    """By method and name; `kube` is virt-api's own identity."""

    def __init__(self, kube: KubeClient, nodes: Nodes) -> None:
        self._kube = kube
        self._nodes = nodes
        # What is in discovery and not here is not modelled.
        self._actions: dict[tuple[str, str], Action] = {
            ("PUT", "virtualmachines/start"): self._start,
            ("PUT", "virtualmachines/stop"): self._stop,
            ("PUT", "virtualmachines/restart"): self._restart,
            ("PUT", "virtualmachineinstances/pause"): partial(self._on_node, "pause", instances.check_pause),
            ("PUT", "virtualmachineinstances/unpause"): partial(self._on_node, "unpause", instances.check_unpause),
            ("GET", "virtualmachineinstances/guestosinfo"): self._ask_agent,
            ("GET", "virtualmachineinstances/userlist"): self._ask_agent,
            ("GET", "virtualmachineinstances/filesystemlist"): self._ask_agent,
        }

    def get(self, method: str, name: str) -> Action:
        """The action; raises `Refused` for one that is not modelled, HTTPException where KubeVirt has none."""
        if action := self._actions.get((method, name)):
            return action
        if any(name == modelled for _, modelled in self._actions):
            raise HTTPException(405)
        # What follows a name in the path is its argument: portforward/22.
        if name == "expand-vm-spec" or any(f"{name}/".startswith(f"{known}/") for known in SUBRESOURCES):
            raise not_modelled(name)
        raise HTTPException(404)

    async def _start(self, target: Target, body: bytes) -> Response:
        machine, instance = await self._machine(target), await self._find(VMIS, target)
        options = read_options(body, StartOptions)
        await self._write(machine, lifecycle.start(machine, instance, options), options.dry_run)
        return Response(status_code=202)

    async def _stop(self, target: Target, body: bytes) -> Response:
        options = read_options(body, StopOptions)
        machine, instance = await self._machine(target), await self._find(VMIS, target)
        await self._write(machine, lifecycle.stop(machine, instance, options), options.dry_run)
        return Response(status_code=202)

    async def _restart(self, target: Target, body: bytes) -> Response:
        options = read_options(body, RestartOptions)
        lifecycle.check_restart(options)
        machine, instance = await self._machine(target), await self._find(VMIS, target)
        await self._write(machine, lifecycle.restart(machine, instance), options.dry_run)
        # Also on a dry run: so does KubeVirt.
        if instance is not None and options.grace_period_seconds is not None:
            await self._delete_launcher(instance)
        return Response(status_code=202)

    async def _on_node(self, action: str, check: Callable[[Object], None], target: Target, body: bytes) -> Response:
        """What virt-handler does: it is done when it answers, so this is a 200."""
        options = read_options(body, PauseOptions)
        instance = await self._instance(target)
        check(instance)
        if options.dry_run[:1] != ["All"]:
            await self._nodes.put(target.namespace, target.name, action)
        return Response()

    async def _ask_agent(self, target: Target, _: bytes) -> Response:
        # KubeVirt answers these with the Status' message as text, and 500 whatever its code.
        try:
            raise instances.no_agent(await self._instance(target))
        except Refused as refusal:
            return PlainTextResponse(str(refusal), 500)

    async def _machine(self, target: Target) -> Object:
        machine = await self._find(VMS, target)
        if machine is None:
            raise not_found(VM, target.name)
        return machine

    async def _instance(self, target: Target) -> Object:
        instance = await self._find(VMIS, target)
        if instance is None:
            raise not_found(VMI, target.name)
        return instance

    async def _find(self, resource: Resource, target: Target) -> Object | None:
        """The VM or its instance, which has the same name; None if there is none."""
        try:
            return await self._kube.get(resource, target.name, target.namespace)
        except KubeError as error:
            if error.code == 404:
                return None
            raise unreadable(resource, target, error.message) from error
        except NO_ANSWER as error:
            raise unreadable(resource, target, describe(error)) from error

    async def _write(self, machine: Object, patches: Iterable[lifecycle.Patch], dry_run: Sequence[str]) -> None:
        meta = machine["metadata"]
        for patch in patches:
            with internal_errors():
                await self._kube.patch(
                    patch.resource,
                    meta["name"],
                    patch.operations,
                    meta["namespace"],
                    kind="json",
                    subresource=patch.subresource,
                    dry_run=bool(dry_run),
                )

    async def _delete_launcher(self, instance: Object) -> None:
        meta = instance["metadata"]
        labels = f"{LAUNCHERS},kubevirt.io/created-by={meta['uid']}"
        query = {"labelSelector": labels, "fieldSelector": "status.phase==Running"}
        with internal_errors():
            found = await self._kube.request("GET", PODS.path(meta["namespace"]), query=query)
            for pod in found["items"][:1]:
                await self._kube.delete(
                    PODS, pod["metadata"]["name"], meta["namespace"], grace_seconds=FORCED_GRACE_SECONDS
                )


def unreadable(resource: Resource, target: Target, why: str) -> Refused:
    kind = "vm" if resource == VMS else "vmi"
    return internal(f"unable to retrieve {kind} [{target.name}]: {why}")


@contextlib.contextmanager
def internal_errors() -> Iterator[None]:
    """What the kube-apiserver does not do for virt-api, a lost race included, is a 500 for whoever asked."""
    try:
        yield
    except KubeError as error:
        raise internal(error.message) from error
    except NO_ANSWER as error:
        raise internal(describe(error)) from error
