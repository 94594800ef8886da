"""Why a wait ran out, in one line: the condition, the event or the answer that explains it.

All of it is asked for once, when the time is over, and not kept watch on: a wait that ends well costs no request. Who
is asked then may be the very one that does not work, so a look that fails is itself what is told.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta

from activities.no_figures import why_no_figures
from virtflow.kube import NO_ANSWER, KubeClient, KubeError, Object, describe
from virtflow.kube.events import last_seen
from virtflow.kube.resources import EVENTS, NODES, POD_METRICS, PODS
from workflows.models import ReplicaSetRef, VirtualMachineRef

__all__ = ["NOBODY", "Causes", "cause_of_machine", "latest_warnings"]

LOOK_LIMIT = timedelta(seconds=5)
"""Of all looks together: an activity has ten seconds more than the wait it carries out."""
FIGURES_LIMIT = timedelta(seconds=2)
"""Within it: who asks for figures asks metrics-server, which may hang where the kube-apiserver does not."""
EVENTS_TOLD = 2
CONDITIONS = (("Failure", "True"), ("Synchronized", "False"), ("PodScheduled", "False"), ("Ready", "False"))
"""Of a machine and its instance, by how much they tell: the last one only that it is so, mostly."""
UNREMARKABLE = ("", "Completed", "ContainerCreating", "PodInitializing")
"""Reasons of containers on their way."""
NOBODY = "nobody says why: there is no condition and no event that tells"


class Causes:
    """Looks as the platform's administrator."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def of_machine(self, machine: VirtualMachineRef, vm: Object | None, instance: Object | None) -> str:
        """Why this very machine does not run, given what is known of it and of its instance."""
        if vm is None:
            return "there is no such virtual machine any more"
        if vm["metadata"]["uid"] != machine.uid:
            return "it is gone, and another virtual machine has its name"
        selector = f"vm.kubevirt.io/name={machine.name},kubevirt.io=virt-launcher"
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                pods = await self._kube.list(PODS, machine.namespace, selector=selector)
                names = [pod["spec"].get("nodeName", "") for pod in pods]
                nodes = [await self._kube.get(NODES, name) for name in filter(None, names)]
                events = await self._kube.list(EVENTS, machine.namespace)
        except (KubeError, *NO_ANSWER) as error:
            return (
                f"{cause_of_machine(vm, instance, [], [], [])}, and what there is more cannot be read: {_said(error)}"
            )
        return cause_of_machine(vm, instance, pods, nodes, events)

    async def of_no_figures(self, target: ReplicaSetRef, autoscaler: Object, replica_set: Object) -> str:
        """Why an autoscaler is at `<unknown>`."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                pods = await self._kube.list(PODS, target.namespace)
                selector = replica_set.get("status", {}).get("labelSelector", "")
                selected = await self._kube.list(PODS, target.namespace, selector=selector) if selector else []
                figures = await self._figures(target.namespace, selector)
        except (KubeError, *NO_ANSWER) as error:
            return f"what it is about cannot be read: {_said(error)}"
        return why_no_figures(autoscaler, selector, selected, pods, figures)

    async def of_namespace(self, namespace: str) -> list[str]:
        """What went wrong there lately."""
        try:
            async with asyncio.timeout(LOOK_LIMIT.total_seconds()):
                events = await self._kube.list(EVENTS, namespace)
        except (KubeError, *NO_ANSWER) as error:
            return [f"its events cannot be read: {_said(error)}"]
        return latest_warnings(events)

    async def _figures(self, namespace: str, selector: str) -> list[Object] | str:
        """Of each pod, or why there are none."""
        try:
            async with asyncio.timeout(FIGURES_LIMIT.total_seconds()):
                return await self._kube.list(POD_METRICS, namespace, selector=selector)
        except TimeoutError:
            return f"it gave no answer within {FIGURES_LIMIT.total_seconds():g} s"
        except (KubeError, *NO_ANSWER) as error:
            return _said(error)


def cause_of_machine(
    vm: Object, instance: Object | None, pods: Sequence[Object], nodes: Sequence[Object], events: Sequence[Object]
) -> str:
    """What tells most of why it does not run, of what the cluster says about it."""
    told = list(_of_machine(vm, instance, pods, nodes))
    names = {vm["metadata"]["name"], *(pod["metadata"]["name"] for pod in pods)}
    # An event says it once more, as a rule, with a pod's name that is of no use by then.
    told += latest_warnings(events, names) if not told else []
    told += list(_readiness(vm, instance)) if not told else []
    return told[0] if told else NOBODY


def _of_machine(
    vm: Object, instance: Object | None, pods: Sequence[Object], nodes: Sequence[Object]
) -> Iterator[str]:
    strategy = vm["spec"].get("runStrategy")
    if strategy == "Halted" or vm["spec"].get("running") is False:
        yield "it is not to run (spec.runStrategy is Halted)"
    for kind, status in CONDITIONS[:-1]:
        yield from _conditions([vm, instance or {}], kind, status)
    for node in nodes:
        for condition in _conditions([node], "Ready", "False", "Unknown"):
            yield f"its node {node['metadata']['name']} is not ready: {condition}"
    for pod in pods:
        for container in pod.get("status", {}).get("containerStatuses", []):
            yield from _of_container(container)


def _of_container(container: Object) -> Iterator[str]:
    for states in (container.get("state", {}), container.get("lastState", {})):
        for kind in ("waiting", "terminated"):
            reason, message = (states.get(kind, {}).get(key, "") for key in ("reason", "message"))
            if reason not in UNREMARKABLE:
                yield f"its container {container['name']} is {kind}, {reason}: {message}".removesuffix(": ")


def _readiness(vm: Object, instance: Object | None) -> Iterator[str]:
    if instance is None:
        yield "virt-controller has made no instance of it"
    yield from _conditions([vm, instance or {}], *CONDITIONS[-1])


def _conditions(objects: Iterable[Object], kind: str, *statuses: str) -> Iterator[str]:
    for obj in objects:
        for condition in obj.get("status", {}).get("conditions") or []:
            said = condition.get("message") or condition.get("reason")
            if condition["type"] == kind and condition["status"] in statuses and said:
                yield f"{said} (condition {kind}={condition['status']}, {condition.get('reason', 'no reason')})"


def latest_warnings(events: Iterable[Object], names: Collection[str] = ()) -> list[str]:
    """The latest warnings about the objects of these names, or about any, each once; the newest first."""
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and (not names or event["involvedObject"].get("name") in names)
    ]
    warnings.sort(key=last_seen, reverse=True)
    # Alike but for the object: one speaks for all.
    told = {(event.get("reason", ""), event["involvedObject"].get("kind", "")): event for event in reversed(warnings)}
    newest = sorted(told.values(), key=last_seen, reverse=True)[:EVENTS_TOLD]
    return [
        f"{event.get('message', '')} (event {event.get('reason', '')} of {event['involvedObject'].get('kind', '')} "
        f"{event['involvedObject'].get('name', '')})"
        for event in newest
    ]


def _said(error: BaseException) -> str:
    return error.message or str(error) if isinstance(error, KubeError) else describe(error)
