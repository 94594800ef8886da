"""What subresources.kubevirt.io says of itself: its versions and resources, as KubeVirt lists them.

The list names every subresource that KubeVirt has, also those that are not modelled here: a client that looks for
one finds it, and is told so when it asks. None has verbs, so nothing that goes through all of a cluster's resources
(the deletion of a namespace, `kubectl api-resources`) takes them for objects.
"""

from clusters.kubevirt.install import SUBRESOURCES as GROUP
from virtflow.kube import Object

__all__ = ["SUBRESOURCES", "VERSION", "resource_list"]

OF_MACHINES = (
    *("addvolume", "evacuate/cancel", "expand-spec", "memorydump", "migrate", "objectgraph", "portforward"),
    *("removememorydump", "removevolume", "restart", "start", "stop"),
)
OF_INSTANCES = (
    *("addvolume", "backup", "console", "evacuate/cancel", "filesystemlist", "freeze", "guestosinfo", "objectgraph"),
    *("pause", "portforward", "removevolume", "reset", "sev/fetchcertchain", "sev/injectlaunchsecret"),
    *("sev/querylaunchmeasurement", "sev/setupsession", "softreboot", "unfreeze", "unpause", "usbredir", "userlist"),
    *("vnc", "vnc/screenshot", "vsock"),
)
SUBRESOURCES = (
    *(f"virtualmachineinstances/{name}" for name in OF_INSTANCES),
    *(f"virtualmachines/{name}" for name in OF_MACHINES),
)

VERSION = {
    "gitVersion": "v1.9.0+stand-in",
    "gitCommit": "",
    "gitTreeState": "",
    "buildDate": "",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
"""Of the KubeVirt that is imitated."""


def resource_list(version: str) -> Object:
    names = ("expand-vm-spec", *SUBRESOURCES)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{version}",
        "resources": [
            {"name": name, "singularName": "", "namespaced": True, "kind": "", "verbs": None} for name in names
        ],
    }
