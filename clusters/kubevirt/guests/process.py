"""The guests' process: informers in, HTTP and CPU figures out, until it is told to stop."""

import asyncio
from datetime import timedelta
from pathlib import Path

from clusters.kubevirt.guests.directory import Directory, Guest
from clusters.kubevirt.guests.http import guests_app, guests_server, listening_socket, loop_clock
from clusters.kubevirt.guests.launchers import exit_launcher
from clusters.kubevirt.guests.usage import report_usage
from clusters.kubevirt.objects import LAUNCHERS
from virtflow.kube import Informer, KubeClient
from virtflow.kube.resources import PODS, VMIRS, VMIS

__all__ = ["run_guests"]


async def run_guests(kubeconfig: Path, port: int, request_cost: timedelta) -> None:
    """Serve every Running VMI's guest on 127.0.0.1:`port` until SIGTERM, SIGINT or cancellation.

    `request_cost` is the CPU time of a request that names none. Raises KubeError if the kubeconfig's identity
    may not do what `install.manifests` grants, OSError if the port is taken.
    """
    listener = listening_socket(port)
    async with await KubeClient.connect(kubeconfig, agent="virtflow-guests") as kube:
        directory = Directory(loop_clock)
        vmis, replica_sets = Informer(kube, VMIS), Informer(kube, VMIRS)
        pods = Informer(kube, PODS, selector=LAUNCHERS)
        vmis.listen(directory.follow)

        def replica_set_uid(namespace: str, name: str) -> str | None:
            found = replica_sets.get(namespace, name)
            return found["metadata"]["uid"] if found else None

        async def end_guest(guest: Guest, exit_code: int) -> bool:
            return await exit_launcher(kube, pods, guest, exit_code)

        server = guests_server(guests_app(directory, replica_set_uid, end_guest, request_cost))
        async with vmis.running(), replica_sets.running(), pods.running():
            reporting = asyncio.create_task(report_usage(kube, directory, pods))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            try:
                await asyncio.wait({reporting, serving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Not serving.cancel(): uvicorn closes its socket and its clients only when asked to exit.
                server.should_exit = True
                reporting.cancel()
                await asyncio.gather(serving, reporting, return_exceptions=True)
            for task in (serving, reporting):
                if not task.cancelled():
                    task.result()
