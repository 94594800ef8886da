"""What runs have left in a cluster: found by its labels alone, removed, and, if it stays, named with what holds it.

Who cleans up by a list of its own deletes does not find what it never knew of; so nothing here remembers a run.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from clusters.endpoints import ClusterError
from virtflow.kube import NO_ANSWER, KubeClient, KubeError, Object, describe
from virtflow.kube.inventory import Found, Inventory, take_inventory
from virtflow.kube.resources import NAMESPACES
from workflows.labels import RUN

__all__ = ["asking", "find_leftovers", "left_by", "remove_leftovers", "sweep", "what_holds"]

STALLED_AFTER = timedelta(seconds=60)
"""Nothing has gone for so long. Kubernetes takes five seconds for a namespace, and more for each of many."""
LOOK_EVERY = timedelta(seconds=1)
LOOKED_WITHIN = timedelta(seconds=15)
"""A look into a namespace that does not go: short, because whoever asks has waited long already."""
AT_ONCE = 10
NAMED_AT_MOST = 10
"""Objects in a sentence: of more their number says enough."""


now = time.monotonic


async def find_leftovers(kube: KubeClient, selector: str = RUN) -> Inventory:
    """Everything with a run's label, or what a narrower selector says."""
    return await take_inventory(kube, selector=selector)


async def sweep(kubeconfig: Path, selector: str) -> list[str]:
    """`remove_leftovers` for who has no client. Raises ClusterError if nobody answers."""
    with asking():
        async with await KubeClient.connect(kubeconfig) as kube:
            return await remove_leftovers(kube, selector)


async def left_by(kubeconfig: Path, run: str) -> list[str]:
    """What a run has left, once nothing of it goes any more. Raises ClusterError if nobody knows."""
    with asking():
        async with await KubeClient.connect(kubeconfig) as kube:
            left = await _until_gone(kube, f"{RUN}={run}")
            if left.unseen and not left.objects:
                raise ClusterError(
                    f"Nobody knows whether all of run {run} is gone: {'; '.join(map(_unseen, left.unseen))}. "
                    f"`virtflow gc --run {run}` looks again."
                )
            return await _named(kube, left, {})


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Within this block a kube-apiserver that does not answer, or that refuses, is the cluster's fault."""
    try:
        yield
    except (KubeError, *NO_ANSWER) as error:
        raise ClusterError(
            f"The kube-apiserver cannot be asked what is left: {describe(error)}. `virtflow gc` tells it when there "
            "is an answer again."
        ) from None


async def remove_leftovers(kube: KubeClient, selector: str) -> list[str]:
    """Delete what a selector says until nothing of it is there; return what stays, and why.

    Gives up when nothing has gone for `STALLED_AFTER`, however much there is.
    """
    refused: dict[str, str] = {}

    async def delete(left: Inventory) -> None:
        refused.clear()
        uids = {found.uid for found in left.objects}
        # What has an owner among them goes with it.
        todo = [found for found in left.objects if not found.deleted and not found.owners & uids]
        # Namespaces first: nothing can be made in them any more, so no controller puts back what is deleted after.
        for are_namespaces in (True, False):
            of_kind = [found for found in todo if (found.resource == NAMESPACES) is are_namespaces]
            refused.update(await _delete(kube, of_kind))

    return await _named(kube, await _until_gone(kube, selector, delete), refused)


async def _delete(kube: KubeClient, objects: Sequence[Found]) -> dict[str, str]:
    """The reasons, by uid, why it did not work."""
    refused: dict[str, str] = {}
    room = asyncio.Semaphore(AT_ONCE)

    async def delete(found: Found) -> None:
        async with room:
            try:
                await kube.delete(found.resource, found.name, found.namespace or None, uid=found.uid)
            except KubeError as error:
                refused[found.uid] = f"its deletion was refused: {error.message}"
            except NO_ANSWER as error:
                refused[found.uid] = f"its deletion had no answer ({describe(error)})"

    await asyncio.gather(*(delete(found) for found in objects))
    return refused


async def _until_gone(
    kube: KubeClient, selector: str, act: Callable[[Inventory], Awaitable[None]] | None = None
) -> Inventory:
    """What is there when nothing goes any more; empty when all is gone. `act` on what there is at each look."""
    fewest, since = math.inf, now()
    while True:
        try:
            left = await find_leftovers(kube, selector)
        except (KubeError, *NO_ANSWER):
            # A kube-apiserver that comes back soon is no reason to give up.
            if now() - since > STALLED_AFTER.total_seconds():
                raise
        else:
            if not left.objects and not left.unseen:
                return left
            if len(left.objects) < fewest:
                fewest, since = len(left.objects), now()
            if now() - since > STALLED_AFTER.total_seconds():
                return left
            if act:
                await act(left)
        await asyncio.sleep(LOOK_EVERY.total_seconds())


async def _named(kube: KubeClient, left: Inventory, reasons: Mapping[str, str]) -> list[str]:
    """Each with the reason that is known by its uid, or with what holds it."""
    namespaces = {found.name for found in left.objects if found.resource == NAMESPACES}
    # Not what is in a namespace that is there, too: that names what holds it.
    outermost = [found for found in left.objects if found.namespace not in namespaces]
    lines = [f"{found} is there: {reasons.get(found.uid) or await _why_there(kube, found)}" for found in outermost]
    return [*lines, *map(_unseen, left.unseen)]


async def _why_there(kube: KubeClient, found: Found) -> str:
    if found.resource == NAMESPACES:
        with contextlib.suppress(KubeError, *NO_ANSWER):
            return await what_holds(kube, await kube.get(NAMESPACES, found.name))
    return _held_by(found)


async def what_holds(kube: KubeClient, namespace: Object) -> str:
    """Why a namespace that was deleted is there: what it says itself, and what is in it, with its finalizers."""
    conditions = namespace.get("status", {}).get("conditions", [])
    said = [condition["message"].rstrip(".") for condition in conditions if condition["status"] == "True"]
    try:
        async with asyncio.timeout(LOOKED_WITHIN.total_seconds()):
            inside = await take_inventory(kube, namespace=namespace["metadata"]["name"])
    except (KubeError, *NO_ANSWER) as error:
        return "; ".join([*said, f"what is in it could not be looked at ({describe(error)})"])
    held = [found for found in inside.objects if found.finalizers]
    # Without a finalizer: a pod whose node does not say that it has ended.
    going = [found for found in inside.objects if found.deleted and not found.finalizers]
    named = [f"{found} is {_held_by(found)}" for found in [*held, *going][:NAMED_AT_MOST]]
    others = len(inside.objects) - len(named)
    if others:
        named.append(f"{others} more" if named else f"objects in it: {others}")
    if inside.objects and not held and not going:
        named.append("none of them is being deleted: kube-controller-manager, which does it, is down or behind")
    return (
        "; ".join([*said, *named, *map(_unseen, inside.unseen)])
        or "it is empty, and says nothing: is kube-controller-manager running?"
    )


def _held_by(found: Found) -> str:
    if found.finalizers:
        plural = "s" if len(found.finalizers) > 1 else ""
        return f"held by the finalizer{plural} {', '.join(found.finalizers)}"
    return "on its way out, without a finalizer" if found.deleted else "not deleted"


def _unseen(kind: str) -> str:
    return f"{kind} could not be looked at"
