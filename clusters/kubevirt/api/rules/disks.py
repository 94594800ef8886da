"""Disks: each with the volume it shows, its bus and its settings."""

import posixpath
import re
from collections.abc import Iterator

from clusters.kubevirt.api.refusals import NOT_SUPPORTED, REQUIRED, Cause
from clusters.kubevirt.api.rules.names import dns_label
from virtflow.kube import Object

__all__ = ["PCI_ADDRESS", "container_disk_paths", "disks", "disks_and_volumes", "file_path", "same_names"]

TARGETS = ("disk", "lun", "cdrom")
BUSES = ("virtio", "scsi", "sata", "usb")
CACHES = ("", "none", "writethrough", "writeback")
IO_MODES = ("", "native", "threads")
ERROR_POLICIES = ("stop", "ignore", "report", "enospace")
SERIAL = re.compile(r"[A-Za-z0-9_.+-]+", re.ASCII)
PCI_ADDRESS = re.compile(r"[\da-fA-F]{4}:[\da-fA-F]{2}:[\da-fA-F]{2}\.[0-7]", re.ASCII)
LONGEST_SERIAL = 256
LEAST_BLOCK, LARGEST_BLOCK = 512, 2**21


def disks_and_volumes(field: str, spec: Object) -> Iterator[Cause]:
    """Each disk shows a volume (a CD-ROM's drive may be empty), some only in a certain way."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    taken: set[int] = set()
    for index, disk in enumerate(spec["domain"]["devices"].get("disks", ())):
        path = f"{field}.domain.devices.disks[{index}]"
        volume = volumes.get(disk["name"])
        if volume is None and "cdrom" not in disk:
            yield Cause(f"{path}.Name '{disk['name']}' not found.", f"{path}.name")
        if volume is not None and "lun" in disk and not volume.keys() & {"persistentVolumeClaim", "dataVolume"}:
            message = f"{path}.lun can only be mapped to a DataVolume or PersistentVolumeClaim volume."
            yield Cause(message, f"{path}.lun")
        if volume is not None and "downwardMetrics" in volume:
            yield from shows_metrics(path, disk)
        order = disk.get("bootOrder")
        if order is not None:
            if order in taken:
                yield Cause(
                    f"Boot order for {path}.bootOrder already set for a different device.", f"{path}.bootOrder"
                )
            taken.add(order)


def shows_metrics(path: str, disk: Object) -> Iterator[Cause]:
    where = f"{path}.disk"
    if "disk" not in disk:
        message = f"DownwardMetrics volume must be mapped to a disk, but disk is not set on {where}."
        yield Cause(message, where, REQUIRED)
    elif (bus := disk["disk"].get("bus", "")) not in ("virtio", ""):
        message = f"DownwardMetrics volume must be mapped to virtio bus, but {where}.bus is set to {bus}"
        yield Cause(message, f"{where}.bus")


def disks(field: str, spec: Object) -> Iterator[Cause]:
    """Some of the paths are KubeVirt's, which repeat their beginning."""
    path = f"{field}.domain.devices.disks"
    found = spec["domain"]["devices"].get("disks", [])
    for index, disk in enumerate(found):
        where, odd = f"{path}[{index}]", f"{path}.domain.devices.disks"
        yield from same_names(path, found, index)
        yield from target(where, disk)
        yield from pci_address(f"{odd}.disk[{index}]", disk.get("disk", {}))
        if disk.get("bootOrder") == 0:
            yield Cause(f"{where} must have a boot order > 0, if supplied", f"{where}.bootOrder")
        yield from bus(where, f"{odd}[{index}]", disk)
        yield from settings(path, where, f"{odd}[{index}]", disk)
        for error in dns_label(disk["name"]):
            yield Cause(error, f"{odd}[{index}].name")
        yield from block_size(f"{where}.blockSize", disk)


def same_names(path: str, items: list[Object], index: int) -> Iterator[Cause]:
    """Earlier items of the list with the same name."""
    for earlier in range(index):
        if items[earlier]["name"] == items[index]["name"]:
            message = f"{path}[{index}] and {path}[{earlier}] must not have the same Name."
            yield Cause(message, f"{path}[{index}].name")


def target(where: str, disk: Object) -> Iterator[Cause]:
    if sum(kind in disk for kind in TARGETS) > 1:
        yield Cause(f"{where} can only have a single target type defined", where)


def pci_address(odd: str, found: Object) -> Iterator[Cause]:
    address = found.get("pciAddress", "")
    if not address:
        return
    if found.get("bus") != "virtio":
        message = f"disk {odd}.name - setting a PCI address is only possible with bus type virtio."
        yield Cause(message, f"{odd}.pciAddress")
    if not PCI_ADDRESS.fullmatch(address):
        yield Cause(f"disk {odd}.name has malformed PCI address ({address}).", f"{odd}.pciAddress")


def bus(where: str, odd: str, disk: Object) -> Iterator[Cause]:
    kind = next((each for each in TARGETS if each in disk), None)
    name = disk[kind].get("bus", "") if kind else ""
    if not name:
        return
    path = f"{where}.{kind}.bus"
    if name == "ide":
        yield Cause("IDE bus is not supported", path)
    elif name not in BUSES:
        message = f"{where} is set with an unrecognized bus {name}, must be one of: [{' '.join(BUSES)}]"
        yield Cause(message, path)
    elif name == "virtio" and kind == "cdrom":
        yield Cause(f"Bus type {name} is invalid for CD-ROM device", path)
    elif name == "sata" and disk.get("disk", {}).get("readonly"):
        yield Cause(f"{name} hard-disks do not support read-only.", f"{where}.disk.bus")
    if disk.get("dedicatedIOThread") and name != "virtio":
        yield Cause(f"IOThreads are not supported for disks on a {name} bus", odd, NOT_SUPPORTED)


def settings(path: str, where: str, odd: str, disk: Object) -> Iterator[Cause]:
    serial = disk.get("serial", "")
    if serial and not SERIAL.fullmatch(serial):
        message = f"{where} must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield Cause(message, f"{where}.serial")
    if len(serial) > LONGEST_SERIAL:
        message = f"{where} must be less than or equal to {LONGEST_SERIAL} in length, if specified"
        yield Cause(message, f"{where}.serial")
    if (cache := disk.get("cache", "")) not in CACHES:
        yield Cause(f"{where}.cache has invalid value {cache}", f"{where}.cache")
    if disk.get("io", "") not in IO_MODES:
        message = f"Disk IO mode for {path} is not supported. Supported modes are: native, threads."
        yield Cause(message, f"{odd}.io", NOT_SUPPORTED)
    if (policy := disk.get("errorPolicy", ERROR_POLICIES[0])) not in ERROR_POLICIES:
        yield Cause(f'{where}.errorPolicy has invalid value "{policy}"', f"{where}.errorPolicy")


def block_size(path: str, disk: Object) -> Iterator[Cause]:
    found = disk.get("blockSize", {})
    if "custom" not in found:
        return
    if "matchVolume" in found and found["matchVolume"].get("enabled", True):
        yield Cause("Block size matching can't be enabled together with a custom value", path)
        return
    sizes, where = found["custom"], f"{path}.custom"
    logical, physical = sizes.get("logical", 0), sizes.get("physical", 0)
    granularity = sizes.get("discardGranularity", 0)
    bus_name = next((disk[each].get("bus") for each in TARGETS if each in disk), "")
    if logical > physical:
        message = f"Logical size {logical} must be the same or less than the physical size of {physical}"
        yield Cause(message, f"{where}.logical")
    elif bus_name == "sata" and logical != LEAST_BLOCK:
        yield Cause(f"Logical size {logical} must be {LEAST_BLOCK} for SATA devices", f"{where}.logical")
    elif logical and granularity % logical:
        message = f"Discard granularity {granularity} must be multiples of logical size {logical}"
        yield Cause(message, f"{where}.discardGranularity")
    else:
        for name, size in (("logical", logical), ("physical", physical)):
            yield from power_of_two(f"{where}.{name}", size)


def power_of_two(path: str, size: int) -> Iterator[Cause]:
    if size < LEAST_BLOCK:
        yield Cause(f"Provided size of {size} is less than the supported minimum size of {LEAST_BLOCK}", path)
    elif size > LARGEST_BLOCK:
        yield Cause(f"Provided size of {size} is greater than the supported maximum size of {LARGEST_BLOCK}", path)
    elif size & (size - 1):
        yield Cause(f"Provided size of {size} is not a power of 2", path)


def container_disk_paths(field: str, spec: Object) -> Iterator[Cause]:
    for index, volume in enumerate(spec.get("volumes", ())):
        if path := volume.get("containerDisk", {}).get("path"):
            yield from file_path(f"{field}.volumes[{index}].containerDisk", path)


def file_path(field: str, path: str) -> Iterator[Cause]:
    """An absolute path to a file, without detours."""
    if path == "/":
        yield Cause(f"{field} must not point to root", field)
    elif posixpath.normpath(f"/{path}").replace("//", "/") != path.removesuffix("/"):
        yield Cause(f"{field} must be an absolute path to a file without relative components", field)
