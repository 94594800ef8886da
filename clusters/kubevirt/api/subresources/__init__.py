"""subresources.kubevirt.io: start, stop, restart, pause and unpause, as virtctl calls them."""

from clusters.kubevirt.api.subresources.endpoints import Subresources
from clusters.kubevirt.api.subresources.nodes import HandlerAccess, Nodes

__all__ = ["HandlerAccess", "Nodes", "Subresources"]
