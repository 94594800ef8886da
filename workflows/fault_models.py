"""What goes into and comes out of steps that make something fail: plain data, as in `models`."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from workflows.models import ObservedArrow, VirtualMachineRef

__all__ = [
    "Instance",
    "LauncherKill",
    "NodeFault",
    "Outage",
    "OutageEnded",
    "OutageEvidence",
    "OutageRecord",
    "Recovery",
    "RecoveryEvidence",
    "RecoveryWait",
]


@dataclass(frozen=True)
class Instance:
    """One life of a virtual machine: the next has another uid."""

    uid: str
    node: str


@dataclass(frozen=True)
class NodeFault:
    """A node that is to fail. `mark` tells whose fault it is: nobody mends another's."""

    node: str
    mark: str


@dataclass(frozen=True)
class LauncherKill:
    """The launcher pod of this life of a machine, and of no later one."""

    machine: VirtualMachineRef
    instance: Instance


@dataclass(frozen=True)
class Outage:
    """A program of the cluster that is taken down as by a crash, and how long it stays away."""

    program: str
    lasts: timedelta


@dataclass(frozen=True)
class OutageEnded:
    """By the clock of the cluster's host (UTC). It was away all the time between the two, and before for as long as
    another worker held it that has died since."""

    gone_at: datetime
    back_at: datetime
    """When it was started again: that it answered took a little longer."""


@dataclass(frozen=True)
class RecoveryWait:
    """Until a machine runs in another life than the one before."""

    machine: VirtualMachineRef
    before: Instance
    within: timedelta
    node_failed: bool = False
    """Whether the life before ended with its node; else with its launcher pod, which was killed."""


@dataclass(frozen=True)
class RecoveryEvidence:
    """What the records of a recovery are looked for by; as in the wait for it."""

    machine: VirtualMachineRef
    before: Instance
    node_failed: bool = False


@dataclass(frozen=True)
class Recovery:
    """A machine that runs again, and how it came to that, by the audit log."""

    instance: Instance
    arrows: list[ObservedArrow]
    """The end of the launcher pod of the life before, which is number 0, and then the arrows of a start."""

    @property
    def took(self) -> timedelta | None:
        """From the launcher pod's end to Running, by the audit log; None where that is not on record."""
        return self.arrows[-1].after if self.arrows else None


@dataclass(frozen=True)
class OutageEvidence:
    """Which writes to look for: those to the virtual machines of a namespace, before, in and after an outage."""

    namespace: str
    ended: OutageEnded


@dataclass(frozen=True)
class OutageRecord:
    """What the audit log holds of that."""

    created: list[str]
    """Names of the virtual machines that were created there, one for each create that succeeded."""
    meanwhile: int
    """Writes to what is in the namespace that arrived while the program was away."""
