"""Who belongs to a replica set: adoption of orphans its selector selects, release of members it no longer does.

Each claim is a patch on condition of the owners that were seen. So of two sets whose selectors overlap the
quicker one gets an orphan, the other is refused, sees whose it is, and leaves it alone: KubeVirt's own patch,
which replaces the owners whatever they are, would let the second one take it. A set that is being deleted claims
nobody, or an orphaning delete would never end.
"""

from clusters.kubevirt.controller.selectors import selects
from clusters.kubevirt.controller.writes import Patch
from clusters.kubevirt.objects import controller_of, is_deleting, json_patch, owner_reference
from virtflow.kube import Object
from virtflow.kube.resources import VMIS

__all__ = ["adoptions", "change_owners", "members", "owners_of", "releases"]


def adoptions(vmirs: Object, orphans: list[Object]) -> list[Patch]:
    """Of those nobody manages in the set's namespace. Before they are performed the set must be looked at afresh."""
    if is_deleting(vmirs):
        return []
    selector = vmirs["spec"]["selector"]
    return [
        change_owners(vmi, [*owners_of(vmi), owner_reference(vmirs)])
        for vmi in orphans
        if selects(selector, vmi) and not is_deleting(vmi)
    ]


def releases(vmirs: Object, owned: list[Object]) -> list[Patch]:
    """Of the instances that the set owns but does not select any more."""
    if is_deleting(vmirs):
        return []
    return [
        change_owners(vmi, [each for each in owners_of(vmi) if each != controller_of(vmi)])
        for vmi in owned
        if not selects(vmirs["spec"]["selector"], vmi)
    ]


def members(vmirs: Object, owned: list[Object]) -> list[Object]:
    """Those that count. One to be released still belongs to a set that is being deleted, but counts no more."""
    return [vmi for vmi in owned if selects(vmirs["spec"]["selector"], vmi)]


def owners_of(vmi: Object) -> list[Object]:
    owners: list[Object] = vmi["metadata"].get("ownerReferences", [])
    return owners


def change_owners(vmi: Object, new: list[Object]) -> Patch:
    return Patch(VMIS, vmi, json_patch("/metadata/ownerReferences", vmi["metadata"].get("ownerReferences"), new))
