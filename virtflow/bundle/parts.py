"""One part of a bundle: the files it may write, within a size of its own.

Each part has its own bound, and not all of them one together: what is large in one takes nothing from the others,
and which came first says nothing of what is in the bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from temporalio.client import Client

from clusters.endpoints import Endpoints
from virtflow.kube import KubeClient
from workflows.labels import SCENARIO

__all__ = ["Failure", "Part", "Scene"]


@dataclass(frozen=True)
class Failure:
    """A step that failed, and where what it was about is found."""

    feature: str
    scenario: str
    step: str
    error: str
    workflow_id: str
    labels: dict[str, str]
    """Of everything that the scenario made."""
    since: datetime
    """From when on the components' words matter (UTC)."""

    @property
    def mark(self) -> str:
        """In the name of each of the scenario's namespaces, and of the bundle."""
        return self.labels[SCENARIO]


@dataclass(frozen=True)
class Scene:
    """Where a bundle is gathered."""

    failure: Failure
    endpoints: Endpoints
    kube: KubeClient
    temporal: Client
    deadline: float
    """On `time.monotonic`: for what cannot be cancelled."""


@dataclass
class Part:
    """What one kind of evidence may take, what it wrote, and what it had to leave out, in words."""

    folder: Path
    room: int
    """Bytes."""
    files: list[tuple[str, str, int]] = field(default_factory=list)
    """Name, what is in it, and its size in bytes."""
    left_out: list[str] = field(default_factory=list)

    def write(
        self, name: str, unit: str, pieces: Sequence[str], *, keep_last: bool = False, most: int | None = None
    ) -> None:
        """Write as many whole pieces as there is room for: the first, or the last. Nothing to say is no file."""
        room = min(self.room, most or self.room)
        kept: list[bytes] = []
        for piece in reversed(pieces) if keep_last else pieces:
            encoded = piece.encode(errors="replace")
            if len(encoded) > room:
                break
            room -= len(encoded)
            kept.append(encoded)
        if lost := len(pieces) - len(kept):
            self.left_out.append(f"{name}: {lost} of {len(pieces)} {unit}, for which there was no room")
        if kept:
            content = b"".join(reversed(kept) if keep_last else kept)
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            self.room -= len(content)
            self.files.append((name, f"{len(kept)} {unit}", len(content)))
