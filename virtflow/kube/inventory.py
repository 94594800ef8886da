"""Whatever a cluster holds, of every kind it knows: what cleanup has to find need not be of a kind known here.

Objects are read by their metadata alone, which is all that is asked, and leaves the content of Secrets where it is. A
kind that cannot be read is told: what may be of it is not there for certain only once somebody has looked.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from virtflow.kube.client import NO_ANSWER, KubeClient, KubeError, describe
from virtflow.kube.resources import Object, Resource

__all__ = ["Found", "Inventory", "take_inventory"]

DISCOVERY = {
    "Accept": ",".join(
        f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
        for version in ("v2", "v2beta1")
    )
}
METADATA = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
NEEDED = {"list", "delete"}
"""Verbs of what is kept: reviews are answers, and metrics are views of something else, with its labels."""
AT_ONCE = 10


@dataclass(frozen=True)
class Found:
    """An object as far as its metadata tells."""

    resource: Resource
    metadata: Object

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def namespace(self) -> str:
        """Empty for what belongs to the whole cluster."""
        return str(self.metadata.get("namespace", ""))

    @property
    def uid(self) -> str:
        return str(self.metadata["uid"])

    @property
    def labels(self) -> Mapping[str, str]:
        return self.metadata.get("labels") or {}

    @property
    def finalizers(self) -> list[str]:
        return self.metadata.get("finalizers") or []

    @property
    def created(self) -> datetime:
        return datetime.fromisoformat(self.metadata["creationTimestamp"])

    @property
    def is_deleted(self) -> bool:
        """Somebody has asked for its end."""
        return "deletionTimestamp" in self.metadata

    @property
    def owners(self) -> set[str]:
        """Their uids."""
        return {owner["uid"] for owner in self.metadata.get("ownerReferences") or []}

    def __str__(self) -> str:
        return f"{self.resource.kind} {f'{self.namespace}/' if self.namespace else ''}{self.name}"


@dataclass
class Inventory:
    """What was looked for and is there."""

    objects: list[Found] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """Kinds that could not be read, each with the reason."""


async def take_inventory(kube: KubeClient, *, namespace: str | None = None, selector: str | None = None) -> Inventory:
    """Each object once, of every kind that can be deleted: in a namespace, or with labels, or both.

    Raises what `KubeClient.request` raises when there is no list of kinds.
    """
    resources, silent = await _kinds(kube)
    inventory = Inventory(unseen=silent)
    room = asyncio.Semaphore(AT_ONCE)
    by_uid: dict[str, Found] = {}

    async def look(resource: Resource) -> None:
        async with room:
            try:
                objects = await _metadata(kube, resource, namespace, selector)
            except (KubeError, *NO_ANSWER) as error:
                inventory.unseen.append(f"{resource.plural} ({describe(error)})")
                return
        # Some kinds are in two groups, with the same objects: events, say.
        by_uid.update({found.uid: by_uid.get(found.uid, found) for found in objects})

    await asyncio.gather(*(look(resource) for resource in resources if namespace is None or resource.namespaced))
    inventory.objects = sorted(by_uid.values(), key=lambda found: (found.namespace, found.resource.kind, found.name))
    inventory.unseen.sort()
    return inventory


async def _metadata(kube: KubeClient, resource: Resource, namespace: str | None, selector: str | None) -> list[Found]:
    query = {"labelSelector": selector} if selector else None
    try:
        answer = await kube.request("GET", resource.path(namespace), query=query, headers=METADATA)
    except KubeError as error:
        if error.code == 404:  # the kind has been removed meanwhile, and all objects with it
            return []
        raise
    # None: Go's way to write that there are none.
    return [Found(resource, item["metadata"]) for item in answer["items"] or []]


async def _kinds(kube: KubeClient) -> tuple[list[Resource], list[str]]:
    """Each in the version its server prefers; and the groups of which nobody knows the kinds at the moment."""
    resources: list[Resource] = []
    silent: list[str] = []
    for path in ("/api", "/apis"):
        answer = await kube.request("GET", path, headers=DISCOVERY)
        for group in answer["items"]:
            name = group["metadata"].get("name", "")
            seen: set[str] = set()
            for version in group["versions"]:
                kinds = version.get("resources") or []
                # An aggregated API whose server does not answer.
                if not kinds and version.get("freshness") == "Stale":
                    silent.append(f"all of {name}/{version['version']} (nobody answers for it)")
                for kind in kinds:
                    # Without verbs it is only the beginning of its subresources' paths.
                    if kind["resource"] not in seen and set(kind["verbs"] or []) >= NEEDED:
                        seen.add(kind["resource"])
                        resources.append(_resource(name, version["version"], kind))
    return resources, silent


def _resource(group: str, version: str, kind: Object) -> Resource:
    return Resource(
        group, version, kind["resource"], kind["responseKind"]["kind"], namespaced=kind["scope"] == "Namespaced"
    )
