"""The webhook that is asked about the eviction of a pod: of a launcher pod its instance's evictionStrategy decides.

Nothing here can migrate, and no instance says that it can be: one that is to be migrated when its node is drained is
refused as KubeVirt refuses what cannot be. One whose evacuation is another's business (External) is marked for
it. All others, and all pods that are no launchers, go as any pod.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated

from pydantic import Field
from starlette.routing import Route

from clusters.kubevirt.api.reviews import Asked, review_route
from clusters.kubevirt.install import WEBHOOK_TIMEOUT_SECONDS
from virtflow.kube import KubeClient, KubeError, Object, describe
from virtflow.kube.resources import PODS, VMIS

__all__ = ["EVICTION_PATH", "eviction_route", "refusal"]

log = logging.getLogger(__name__)

EVICTION_PATH = "/launcher-eviction-validate"
TOO_MANY_REQUESTS = 429
PATIENCE = timedelta(seconds=WEBHOOK_TIMEOUT_SECONDS - 2)
"""How long the kube-apiserver may take to be asked: a verdict that it no longer waits for is none."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")]
"""It becomes a part of a path at the kube-apiserver, where ".." would be another path."""


class AboutPod(Asked):
    """The `request` about an eviction."""

    namespace: Name
    name: Name
    dry_run: bool | None = None


def eviction_route(connect: Callable[[], Awaitable[KubeClient]]) -> Route:
    """`connect` gives virt-api's own client."""

    async def answer(asked: AboutPod) -> Object:
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                kube = await connect()
                message = await judge(kube, asked.namespace, asked.name, dry_run=bool(asked.dry_run))
        # All of them: the kube-apiserver takes a call that fails for consent (failurePolicy Ignore, as in KubeVirt).
        except Exception as error:
            log.exception("the eviction of %s/%s could not be judged", asked.namespace, asked.name)
            message = f"kubevirt failed judging the eviction: {describe(error)}"
        if message is None:
            return {"allowed": True}
        return {"allowed": False, "status": {"message": message, "code": TOO_MANY_REQUESTS}}

    return review_route(EVICTION_PATH, AboutPod, answer)


async def judge(kube: KubeClient, namespace: str, name: str, *, dry_run: bool) -> str | None:
    """Why this pod may not be evicted, None if it may. Marks its instance if its evacuation is to be begun."""
    try:
        pod = await kube.get(PODS, name, namespace)
    except KubeError:
        return None
    if (instance := instance_of(pod)) is None:
        return None
    try:
        vmi = await kube.get(VMIS, instance, namespace)
    except KubeError as error:
        return f"kubevirt failed getting the vmi: {error.message}"
    message = refusal(pod, vmi)
    if message == evacuation(vmi) and not dry_run:
        mark = [{"op": "add", "path": "/status/evacuationNodeName", "value": pod["spec"].get("nodeName", "")}]
        try:
            await kube.patch(VMIS, instance, mark, namespace, kind="json")
        except KubeError as error:
            return f"kubevirt failed marking the vmi for eviction: {error.message}"
    return message


def instance_of(pod: Object) -> str | None:
    """The name of the instance whose launcher a pod is, while it is one."""
    labels, annotations = (pod["metadata"].get(field, {}) for field in ("labels", "annotations"))
    over = pod["status"].get("phase") in ("Succeeded", "Failed")
    return None if over or labels.get("kubevirt.io") != "virt-launcher" else annotations.get("kubevirt.io/domain")


def refusal(pod: Object, vmi: Object) -> str | None:
    """What KubeVirt answers to the eviction of an instance's launcher pod, None if nothing is against it."""
    match vmi["spec"].get("evictionStrategy"):
        case "LiveMigrate":
            return f"VMI {vmi['metadata']['name']} is configured with an eviction strategy but is not live-migratable"
        case "External" if vmi["status"].get("evacuationNodeName"):
            return f"Evacuation in progress: {evacuation(vmi)}"
        case "External" if vmi["status"].get("nodeName") != pod["spec"].get("nodeName"):
            return "Eviction request for target Pod"
        case "External":
            return evacuation(vmi)
        case _:
            return None


def evacuation(vmi: Object) -> str:
    meta = vmi["metadata"]
    return f'Eviction triggered evacuation of VMI "{meta["namespace"]}/{meta["name"]}"'
