"""The launcher pods that guests run in, and the end of one: a guest that has ended takes its launcher along.

kwok reads the annotation, and plays the kubelet that sees the containers exit; virt-handler tells of it, and the
virtual machine's run strategy decides what follows.
"""

from clusters.kubevirt.guests.directory import Guest
from virtflow.kube import Informer, KubeClient, KubeError, Object
from virtflow.kube.resources import PODS

__all__ = ["CREATED_BY", "EXIT_CODE", "exit_launcher", "running_launchers"]

CREATED_BY = "kubevirt.io/created-by"
EXIT_CODE = "virtflow/exit-code"


def running_launchers(pods: Informer) -> dict[str, Object]:
    """By the uid of the VMI."""
    return {
        pod["metadata"]["labels"][CREATED_BY]: pod
        for pod in pods.items()
        if pod.get("status", {}).get("phase") == "Running" and CREATED_BY in pod["metadata"]["labels"]
    }


async def exit_launcher(kube: KubeClient, pods: Informer, guest: Guest, exit_code: int) -> bool:
    """Let a guest's launcher exit; False if it has none any more. Raises what `KubeClient.request` raises."""
    pod = running_launchers(pods).get(guest.uid)
    if pod is None:
        return False
    meta = pod["metadata"]
    patch = {"metadata": {"uid": meta["uid"], "annotations": {EXIT_CODE: str(exit_code)}}}
    try:
        pods.observe(await kube.patch(PODS, meta["name"], patch, meta["namespace"]))
    except KubeError as error:
        if error.code in (404, 409):
            return False
        raise
    return True
