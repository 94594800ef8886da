"""The one error a user is meant to read.

VirtflowError
 ├─ ToolchainError     clusters.local.toolchain
 ├─ ClusterError       clusters.local
 └─ LoadError          load
"""

__all__ = ["VirtflowError"]


class VirtflowError(Exception):
    """One clear paragraph: what happened, to what, why, and what to do. Shown without a traceback."""
