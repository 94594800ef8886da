"""Which kinds of object a cluster has, by its own word: what nobody here thought of is found, too."""

from virtflow.kube.client import KubeClient
from virtflow.kube.resources import Object, Resource

__all__ = ["list_resources"]

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
"""All groups in one answer, Kubernetes 1.30 and later."""


async def list_resources(kube: KubeClient) -> list[Resource]:
    """Every kind that can be listed, each in the version that its group prefers. Raises KubeError, or `NO_ANSWER`.

    A group whose server is away is left out: nobody knows its kinds.
    """
    found: list[Resource] = []
    for root in ("/api", "/apis"):
        answer = await kube.request("GET", root, headers={"Accept": AGGREGATED})
        for group in answer["items"]:
            found += _resources_of(group)
    return found


def _resources_of(group: Object) -> list[Resource]:
    name = group["metadata"].get("name", "")
    # Another version has the same objects again, so only kinds that the preferred one lacks are taken from it.
    found: dict[str, Resource] = {}
    for version in group["versions"]:
        for each in version.get("resources", ()):
            if "list" in each["verbs"]:
                kind, namespaced = each["responseKind"]["kind"], each["scope"] == "Namespaced"
                resource = Resource(name, version["version"], each["resource"], kind, namespaced)
                found.setdefault(resource.plural, resource)
    return list(found.values())
