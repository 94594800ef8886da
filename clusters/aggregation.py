"""An API that the kube-apiserver's aggregator fetches from a process on this host, as it would from a pod."""

import base64
from collections.abc import Sequence

from virtflow.kube.resources import API_SERVICES, SERVICES, Object, Resource

__all__ = ["aggregated_api"]


def aggregated_api(
    group: str,
    versions: Sequence[str],
    *,
    service: str,
    namespace: str,
    port: int,
    ca: bytes,
    priority: tuple[int, int],
) -> list[tuple[Resource, Object]]:
    """A Service, and an APIService for each version of the group; to be applied in this order.

    The process listens on 127.0.0.1:`port`, with a certificate for `<service>.<namespace>.svc`; `ca` is the PEM of
    the authority that signed it. `priority` is that of the group and of a version in it.
    """
    group_priority, version_priority = priority
    return [
        # The aggregator follows an ExternalName, and so reaches a process on the host.
        (
            SERVICES,
            {
                "metadata": {"name": service, "namespace": namespace},
                "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
            },
        ),
        *(
            (
                API_SERVICES,
                {
                    "metadata": {"name": f"{version}.{group}"},
                    "spec": {
                        "group": group,
                        "version": version,
                        "groupPriorityMinimum": group_priority,
                        "versionPriority": version_priority,
                        "caBundle": base64.b64encode(ca).decode(),
                        "service": {"name": service, "namespace": namespace, "port": port},
                    },
                },
            )
            for version in versions
        ),
    ]
