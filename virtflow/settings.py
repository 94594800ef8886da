"""What a user can set, from the environment: every field is read from `VIRTFLOW_<FIELD>`."""

import os
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["CLUSTER_NAME", "Settings", "faults_of"]

CLUSTER_NAME = "^[a-z0-9][a-z0-9-]*$"
"""A folder's name, and `down` removes that folder: it must not lead anywhere else."""


def _xdg(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "virtflow"


class Settings(BaseSettings):
    """The command line's options override these."""

    model_config = SettingsConfigDict(env_prefix="VIRTFLOW_")

    cluster: str = Field(default="local", pattern=CLUSTER_NAME)
    """Name of the local cluster; clusters of different names live side by side."""

    toolchain: str = "auto"
    """`build`: compile the pinned upstream programs once; `upstream`: download them; `auto`: whichever is there or
    works; or a folder that holds them."""

    mirror: str = Field(default="", pattern="^(https?://.+)?$")
    """Where `upstream` downloads from instead of the official addresses: this, then their host and path."""

    nodes: int = Field(default=3, ge=1)
    """kwok nodes of a new cluster."""

    keep: bool = False
    """Leave what `virtflow e2e` started up when it ends."""

    state_home: Path = _xdg("XDG_STATE_HOME", ".local/state")
    """Where clusters keep their state. Short, because it holds Unix sockets (107 bytes at most)."""

    cache_home: Path = _xdg("XDG_CACHE_HOME", ".cache")
    """Where the toolchain is kept, shared by all checkouts."""


def faults_of(error: ValidationError) -> list[str]:
    """Each setting that is not valid, by its variable, and why."""
    return [
        f"VIRTFLOW_{str(fault['loc'][0]).upper()} is {fault['input']!r}: {fault['msg']}" for fault in error.errors()
    ]
