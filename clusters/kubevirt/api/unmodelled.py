"""What real KubeVirt would take and the stand-in does not model: refused in words, or warned of, never ignored.

Refused is what would make a machine run here that does not run like this anywhere: without its disk, its network,
its device. Warned of is what only matters when something else happens to the machine. What is a guest's own affair
(its clock, firmware, CPU model, cloud-init) needs neither: nothing outside of the guest could tell.

docs/DEVIATIONS.md has the list for people.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clusters.kubevirt.api.refusals import NOT_SUPPORTED, Cause
from virtflow.kube import Object

__all__ = ["unmodelled_causes", "unmodelled_warnings"]

NOTHING: tuple[object, ...] = (None, False, "", [])
"""Values by which a field says that it is not used. An empty object is used."""


@dataclass(frozen=True)
class Feature:
    """Something unmodelled: its name in a sentence, the fields that ask for it, and which of their values do."""

    what: str
    fields: tuple[str, ...]
    values: tuple[str, ...] = ()

    def asked_for(self, field: str, spec: Object) -> Iterator[str]:
        """The paths in a spec at `field` that ask for it."""
        for path in self.fields:
            for where, value in find(spec, path.split("."), field):
                if value in self.values if self.values else value not in NOTHING:
                    yield where


REFUSED = (
    Feature(
        "persistent storage",
        (
            "volumes[].persistentVolumeClaim",
            "volumes[].dataVolume",
            "volumes[].ephemeral",
            "volumes[].memoryDump",
            "domain.devices.tpm.persistent",
            "domain.firmware.bootloader.efi.persistent",
        ),
    ),
    Feature(
        "networks other than the pod's",
        ("networks[].multus", "domain.devices.interfaces[].sriov", "domain.devices.interfaces[].binding"),
    ),
    Feature("interfaces that are down or unplugged", ("domain.devices.interfaces[].state",), ("absent", "down")),
    Feature("devices of the host", ("domain.devices.gpus", "resourceClaims")),
    Feature(
        "dedicated CPUs and huge pages",
        ("domain.cpu.dedicatedCpuPlacement", "domain.memory.hugepages"),
    ),
    Feature("encrypted machines", ("domain.launchSecurity",)),
)
REFUSED_OF_MACHINES = (
    Feature("instance types and preferences", ("instancetype", "preference")),
    Feature("persistent storage", ("dataVolumeTemplates",)),
    Feature("migration", ("updateVolumesStrategy",), ("Migration",)),
)
WARNED_OF = (
    Feature("migration", ("evictionStrategy",), ("LiveMigrate", "LiveMigrateIfPossible", "External")),
    Feature("probes", ("readinessProbe", "livenessProbe")),
)


def unmodelled_causes(field: str, instance: Object, machine: Object | None = None) -> Iterator[Cause]:
    """Why an instance's spec at `field` cannot run here, or the VirtualMachine's whole spec around it."""
    for features, path, spec in ((REFUSED, field, instance), (REFUSED_OF_MACHINES, "spec", machine or {})):
        for feature in features:
            for where in feature.asked_for(path, spec):
                yield Cause(
                    f"{where}: virtflow's local stand-in for KubeVirt does not model {feature.what}, "
                    "only a cluster with the real KubeVirt does",
                    where,
                    NOT_SUPPORTED,
                )


def unmodelled_warnings(field: str, instance: Object) -> tuple[str, ...]:
    """What of an instance's spec at `field` will have no effect here."""
    return tuple(
        f"{where} has no effect: virtflow's local stand-in for KubeVirt does not model {feature.what}"
        for feature in WARNED_OF
        for where in feature.asked_for(field, instance)
    )


def find(node: Any, path: list[str], at: str) -> Iterator[tuple[str, Any]]:
    """What stands at a path in an object, and where; `[]` after a name stands for each item of that list."""
    name, *rest = path
    value = node.get(name.removesuffix("[]"))
    where = f"{at}.{name.removesuffix('[]')}"
    items = enumerate(value or ()) if name.endswith("[]") else ()
    found = [(f"{where}[{index}]", item) for index, item in items] if name.endswith("[]") else [(where, value)]
    for place, item in found:
        if not rest:
            yield place, item
        elif item is not None:
            yield from find(item, rest, place)
