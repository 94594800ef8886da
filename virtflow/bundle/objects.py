"""The objects in a scenario's namespaces as YAML, and their events as lines that can be read."""

import asyncio
from typing import Any

import yaml

from virtflow.bundle.parts import Part, Scene
from virtflow.kube import KubeClient, KubeError, Object, Resource
from virtflow.kube.events import last_seen
from virtflow.kube.inventory import list_kinds
from virtflow.kube.resources import EVENTS, NAMESPACES, VMS

__all__ = ["gather_events", "gather_objects", "without_secrets"]

MOST_NAMESPACES = 20
"""Of a crowd's hundred: forty requests each are too many for the time there is."""
REMOVED = "(not kept)"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


async def gather_objects(part: Part, scene: Scene) -> None:
    """A file for each namespace, the namespace itself first, then kind by kind. No secret's contents."""
    kinds, silent = await list_kinds(scene.kube)
    part.left_out += silent
    resources = sorted(
        # Events have a file of their own.
        (kind for kind in kinds if kind.namespaced and kind.plural != EVENTS.plural),
        key=lambda kind: (kind.group != VMS.group, kind.group, kind.plural),
    )
    for namespace in await _namespaces(part, scene):
        name = namespace["metadata"]["name"]
        found = await asyncio.gather(*(_listed(scene.kube, resource, name) for resource in resources))
        documents = []
        for each in [namespace, *(each for listed in found for each in listed)]:
            documents.append(as_yaml(each))
            # Each takes a millisecond or two, and whatever else is gathered meanwhile must not wait for all.
            await asyncio.sleep(0)
        part.write(f"objects/{name}.yaml", "objects", documents)


async def gather_events(part: Part, scene: Scene) -> None:
    """One file, in the order of their times."""
    found = [
        event
        for namespace in await _namespaces(part, scene)
        for event in await scene.kube.list(EVENTS, namespace["metadata"]["name"])
    ]
    part.write("events.txt", "events", [line_of(each) for each in sorted(found, key=last_seen)])


async def _namespaces(part: Part, scene: Scene) -> list[Object]:
    selector = ",".join(f"{key}={value}" for key, value in scene.failure.labels.items())
    found = [_with_kind(NAMESPACES, each) for each in await scene.kube.list(NAMESPACES, selector=selector)]
    if len(found) > MOST_NAMESPACES:
        part.left_out.append(f"{len(found) - MOST_NAMESPACES} of {len(found)} namespaces")
    return found[:MOST_NAMESPACES]


async def _listed(kube: KubeClient, resource: Resource, namespace: str) -> list[Object]:
    try:
        return [_with_kind(resource, each) for each in await kube.list(resource, namespace)]
    except KubeError as error:
        # Of one kind, say of an API whose server is away: the others are as good as they were.
        return [{"apiVersion": resource.api_version, "kind": resource.kind, "not listed": str(error)}]


def _with_kind(resource: Resource, each: Object) -> Object:
    """A list's items do not say what they are."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **each}


def as_yaml(each: Object) -> str:
    text: str = yaml.dump(without_secrets(each), Dumper=yaml.CSafeDumper, sort_keys=False, explicit_start=True)
    return text


def without_secrets(each: Object) -> Object:
    """The object without what nobody may read, and without the noise of who manages which field."""
    metadata: dict[str, Any] = {
        key: value for key, value in each.get("metadata", {}).items() if key != "managedFields"
    }
    kept = {**each, **({"metadata": metadata} if metadata else {})}
    if each.get("kind") == "Secret":
        for field in ("data", "stringData"):
            if field in kept:
                kept[field] = dict.fromkeys(kept[field], REMOVED)
        if LAST_APPLIED in metadata.get("annotations", {}):
            metadata["annotations"] = {**metadata["annotations"], LAST_APPLIED: REMOVED}
    return kept


def line_of(event: Object) -> str:
    """`23:41:47 Warning FailedCreate Pod/one-abc: words (3 times, by virtualmachine-controller)`"""
    about = event.get("involvedObject", {})
    times = event.get("count") or (event.get("series") or {}).get("count") or 1
    source = event.get("reportingComponent") or event.get("source", {}).get("component", "")
    notes = ", ".join(([f"{times} times"] if times > 1 else []) + ([f"by {source}"] if source else []))
    message = " ".join(str(event.get("message", "")).split())
    return (
        f"{last_seen(event)} {event.get('type', '')} {event.get('reason', '')} "
        f"{about.get('namespace', '')} {about.get('kind', '')}/{about.get('name', '')}: {message}"
        f"{f' ({notes})' if notes else ''}\n"
    )
