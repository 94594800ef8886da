"""subresources.kubevirt.io: start, stop, restart, pause and unpause, as virtctl calls them."""

from clusters.kubevirt.api.subresources.endpoints import LateClient, subresource_routes
from clusters.kubevirt.api.subresources.nodes import HandlerAccess, Nodes

__all__ = ["HandlerAccess", "LateClient", "Nodes", "subresource_routes"]
