"""What KubeVirt demands of disks and volumes, interfaces and networks, and of the names that join them.

Called through `instance_causes`; see there for the shape of a rule.
"""

import re
from collections.abc import Iterator

from clusters.kubevirt.api.refusals import DUPLICATE, REQUIRED, Cause
from virtflow.kube import Object

__all__ = ["disks", "interfaces", "networks", "volumes"]

TARGETS = ("disk", "lun", "cdrom")
BUSES = ("virtio", "scsi", "sata", "usb")
CACHES = ("none", "writethrough", "writeback")
SERIAL = re.compile(r"[A-Za-z0-9_.+-]+", re.ASCII)
NETWORK_TYPES = ("pod", "multus")


def disks(field: str, spec: Object) -> Iterator[Cause]:
    devices = spec["domain"]["devices"]
    volume_names = {volume["name"] for volume in spec.get("volumes", ())}
    for index, disk in enumerate(devices.get("disks", ())):
        path = f"{field}.domain.devices.disks[{index}]"
        if disk["name"] not in volume_names:
            yield Cause(f"{path}.Name '{disk['name']}' not found.", f"{path}.name")
    yield from boot_orders(field, devices)
    yield from same_names(f"{field}.domain.devices.disks", devices.get("disks", []))
    for index, disk in enumerate(devices.get("disks", ())):
        yield from disk_settings(f"{field}.domain.devices.disks[{index}]", disk)


def disk_settings(path: str, disk: Object) -> Iterator[Cause]:
    targets = [target for target in TARGETS if target in disk]
    if len(targets) > 1:
        yield Cause(f"{path} can only have a single target type defined", path)
    for target in targets:
        bus = disk[target].get("bus")
        where = f"{path}.{target}.bus"
        if bus == "ide":
            yield Cause("IDE bus is not supported", where)
        elif bus and bus not in BUSES:
            allowed = " ".join(BUSES)
            yield Cause(f"{path} is set with an unrecognized bus {bus}, must be one of: [{allowed}]", where)
        elif bus == "virtio" and target == "cdrom":
            yield Cause(f"Bus type {bus} is invalid for CD-ROM device", where)
    serial = disk.get("serial", "")
    if len(serial) > 256:
        yield Cause(f"{path} must be less than or equal to 256 in length, if specified", f"{path}.serial")
    if serial and not SERIAL.fullmatch(serial):
        yield Cause(
            f"{path} must be made up of the following characters [A-Za-z0-9_.+-], if specified",
            f"{path}.serial",
        )
    if disk.get("cache", "none") not in CACHES:
        yield Cause(f"{path}.cache has invalid value {disk['cache']}", f"{path}.cache")


def boot_orders(field: str, devices: Object) -> Iterator[Cause]:
    taken: set[int] = set()
    for kind in ("disks", "interfaces"):
        for index, device in enumerate(devices.get(kind, ())):
            order = device.get("bootOrder")
            if order is None:
                continue
            path = f"{field}.domain.devices.{kind}[{index}].bootOrder"
            if order == 0:
                yield Cause(f"{path.removesuffix('.bootOrder')} must have a boot order > 0, if supplied", path)
            elif order in taken:
                yield Cause(f"Boot order for {path} already set for a different device.", path)
            taken.add(order)


def volumes(field: str, spec: Object) -> Iterator[Cause]:
    found = spec.get("volumes", [])
    yield from same_names(f"{field}.volumes", found)
    for index, volume in enumerate(found):
        if len(volume.keys() - {"name"}) != 1:
            path = f"{field}.volumes[{index}]"
            yield Cause(f"{path} must have exactly one source type set", path)


def interfaces(field: str, spec: Object) -> Iterator[Cause]:
    network_names = {network["name"] for network in spec.get("networks", ())}
    seen: set[str] = set()
    for index, interface in enumerate(spec["domain"]["devices"].get("interfaces", ())):
        path = f"{field}.domain.devices.interfaces[{index}].name"
        if interface["name"] not in network_names:
            yield Cause(f"{path} '{interface['name']}' not found.", path)
        if interface["name"] in seen:
            yield Cause("Only one interface can be connected to one specific network", path, DUPLICATE)
        seen.add(interface["name"])


def networks(field: str, spec: Object) -> Iterator[Cause]:
    interface_names = {interface["name"] for interface in spec["domain"]["devices"].get("interfaces", ())}
    for index, network in enumerate(spec.get("networks", ())):
        path = f"{field}.networks[{index}]"
        kinds = [kind for kind in NETWORK_TYPES if kind in network]
        if not kinds:
            yield Cause("should have a network type", path, REQUIRED)
        elif len(kinds) > 1:
            yield Cause("should have only one network type", path, REQUIRED)
        if network["name"] not in interface_names:
            yield Cause(f"{path}.name '{network['name']}' not found.", f"{path}.name", REQUIRED)


def same_names(field: str, items: list[Object]) -> Iterator[Cause]:
    """A name that an earlier item of the list has already."""
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        earlier = first.setdefault(item["name"], index)
        if earlier != index:
            yield Cause(
                f"{field}[{index}] and {field}[{earlier}] must not have the same Name.",
                f"{field}[{index}].name",
            )
