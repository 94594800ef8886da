"""Tells the cluster how much CPU each guest uses, by an annotation of its launcher pod.

kwok's ClusterResourceUsage reads `kwok.x-k8s.io/usage-cpu` and serves it as the kubelet's own figures;
metrics-server and the autoscaler take it from there. The annotation in the informer's copy is the memory of
what was written last, so that a restart of this process repeats no write.
"""

import asyncio
import logging
import time
from datetime import timedelta

from clusters.kubevirt.guests.directory import Directory
from clusters.kubevirt.guests.http import loop_clock
from clusters.kubevirt.guests.launchers import running_launchers
from clusters.kubevirt.guests.machine import usage_figure
from virtflow.kube import NO_ANSWER, Informer, KubeClient, KubeError, Object, describe
from virtflow.kube.informer import REFUSED_FOR
from virtflow.kube.resources import PODS

__all__ = ["USAGE", "report_usage", "write_usage"]

log = logging.getLogger(__name__)

USAGE = "kwok.x-k8s.io/usage-cpu"

WINDOW = timedelta(seconds=2)
"""Between two writes to one pod, and what a figure averages over. metrics-server looks every 10 s at most."""

WRITES_AT_ONCE = 20
"""A round of writes to hundreds of pods must not crowd out the tenants' own requests."""


async def report_usage(kube: KubeClient, directory: Directory, pods: Informer) -> None:
    """Write the figures of every window, for ever. Raises KubeError if this identity may not for a while."""
    refused_since: float | None = None
    while True:
        await asyncio.sleep(WINDOW.total_seconds())
        try:
            await write_usage(kube, directory, pods)
        except KubeError as error:
            refused_since = refused_since or time.monotonic()
            if time.monotonic() - refused_since >= REFUSED_FOR.total_seconds():
                raise
            log.warning("CPU figures not written: %s", error)
        else:
            refused_since = None


async def write_usage(kube: KubeClient, directory: Directory, pods: Informer) -> None:
    """Write what each guest used since the last call to its pod, where that changes the figure there.

    Raises KubeError if this identity may not; any other failure is logged and made good by the next window.
    """
    now, limit = loop_clock(), asyncio.Semaphore(WRITES_AT_ONCE)
    launchers = running_launchers(pods)

    async def write(pod: Object, figure: str) -> None:
        meta = pod["metadata"]
        patch = {"metadata": {"annotations": {USAGE: figure}}}
        try:
            async with limit:
                pods.observe(await kube.patch(PODS, meta["name"], patch, meta["namespace"]))
        except KubeError as error:
            if error.code in (401, 403):
                raise
            if error.code != 404:
                log.warning("CPU figure %s of %s not written: %s", figure, meta["name"], error)
        except NO_ANSWER as error:
            log.warning("CPU figure %s of %s not written: %s", figure, meta["name"], describe(error))

    writes = []
    for guest in directory.guests():
        figure = usage_figure(guest.meter.read(now))
        pod = launchers.get(guest.uid)
        if pod is not None and pod["metadata"].get("annotations", {}).get(USAGE) != figure:
            writes.append(write(pod, figure))
    await asyncio.gather(*writes)
