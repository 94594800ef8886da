"""Volumes: one source to each, and what each source asks for."""

import base64
import binascii
from collections.abc import Iterator

from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.api.refusals import NOT_FOUND, REQUIRED, Cause
from clusters.kubevirt.api.rules.names import size
from virtflow.kube import Object

__all__ = ["utility_volumes", "volumes", "volumes_in_use"]

LONGEST_CLOUD_INIT = 2048
RESERVED_PATHS = ("/var/run/kubevirt", "/var/run/libvirt")
NAMED = (("configMap", "name"), ("secret", "secretName"), ("serviceAccount", "serviceAccountName"))
AT_MOST_ONE = (
    ("serviceAccount", "serviceAccount volume"),
    ("downwardMetrics", "downwardMetric volume"),
    ("memoryDump", "memory dump volume"),
)


def volumes(field: str, spec: Object) -> Iterator[Cause]:
    found, path = spec.get("volumes", []), f"{field}.volumes"
    first: dict[str, int] = {}
    for index, volume in enumerate(found):
        earlier = first.setdefault(volume["name"], index)
        if earlier != index:
            message = f"{path}[{index}] and {path}[{earlier}] must not have the same Name."
            yield Cause(message, f"{path}[{index}].name")
        yield from source(f"{path}[{index}]", volume)
    for kind, words in AT_MOST_ONE:
        if sum(kind in volume for volume in found) > 1:
            yield Cause(f"{path} must have max one {words} set", path)


def source(path: str, volume: Object) -> Iterator[Cause]:
    if "dataVolume" in volume and not volume["dataVolume"]["name"]:
        yield Cause("DataVolume 'name' must be set", f"{path}.name", REQUIRED)
    if len(volume.keys() - {"name"}) != 1:
        yield Cause(f"{path} must have exactly one source type set", path)
    for kind in ("cloudInitNoCloud", "cloudInitConfigDrive"):
        if kind in volume:
            yield from cloud_init(f"{path}.{kind}", kind, volume[kind])
            break
    if "downwardMetrics" in volume:
        message = "downwardMetrics disks are not allowed: DownwardMetrics feature gate is not enabled."
        yield Cause(message, path)
    if "hostDisk" in volume:
        yield from host_disk(path, volume["hostDisk"])
    for kind, name in NAMED:
        if kind in volume and not volume[kind].get(name):
            yield Cause(f"{path}.{kind}.{name} is a required field", f"{path}.{kind}.{name}")


def cloud_init(path: str, kind: str, data: Object) -> Iterator[Cause]:
    given = 0
    for name, secret, one_only, words in (
        ("userData", "secretRef", "userdatasource", "userdata"),
        ("networkData", "networkDataSecretRef", "networkdata source", "networkdata"),
    ):
        plain, encoded = data.get(name, ""), data.get(f"{name}Base64", "")
        count = sum(map(bool, (data.get(secret, {}).get("name"), encoded, plain)))
        given += count
        if encoded and not is_base64(encoded):
            where = f"{path}.{name}Base64"
            yield Cause(f"{where}.{kind}.{name}Base64 is not a valid base64 value.", where)
        if count > 1:
            yield Cause(f"{path} must have only one {one_only} set.", path)
        length = size(plain) or decoded_length(encoded)
        if length > LONGEST_CLOUD_INIT:
            message = f"{path} {words} exceeds {LONGEST_CLOUD_INIT} byte limit. Should use "
            yield Cause(f"{message}{name[0].upper()}{name[1:]}SecretRef for larger data.", path)
    if not given:
        yield Cause(f"{path} must have at least one userdatasource or one networkdatasource set.", path)


def is_base64(text: str) -> bool:
    try:
        base64.b64decode(without_line_ends(text), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def decoded_length(text: str) -> int:
    return len(base64.b64decode(without_line_ends(text))) if is_base64(text) else 0


def without_line_ends(text: str) -> str:
    return text.replace("\n", "").replace("\r", "")


def host_disk(path: str, disk: Object) -> Iterator[Cause]:
    where = f"{path}.hostDisk"
    yield Cause("HostDisk feature gate is not enabled", path)
    if not disk["path"]:
        yield Cause(f"{where}.path is required for hostDisk volume", f"{where}.path", NOT_FOUND)
    if disk["type"] not in ("Disk", "DiskOrCreate"):
        message = f"{where}.type has invalid value '{disk['type']}', allowed are 'Disk' or 'DiskOrCreate'"
        yield Cause(message, f"{where}.type")
    if disk["type"] == "Disk" and Quantity.parse(disk.get("capacity", "0")).amount:
        message = f"{where}.capacity is allowed to pass only with {where}.type equal to 'DiskOrCreate'"
        yield Cause(message, f"{where}.capacity")


def utility_volumes(field: str, spec: Object) -> Iterator[Cause]:
    if spec.get("utilityVolumes"):
        yield Cause(
            "cannot create VMI with utility volumes in spec, utility volumes can only be added via hotplug",
            f"{field}.utilityVolumes",
        )


def volumes_in_use(field: str, spec: Object) -> Iterator[Cause]:
    """Asked of an instance only: each volume is shown as a disk or as a filesystem."""
    devices = spec["domain"]["devices"]
    shown = {disk["name"] for disk in devices.get("disks", ())}
    shared = {filesystem["name"] for filesystem in devices.get("filesystems", ())}
    for index, volume in enumerate(spec.get("volumes", ())):
        if "memoryDump" in volume:
            continue
        path, name = f"{field}.domain.volumes[{index}]", volume["name"]
        if name not in shown | shared:
            yield Cause(f"{path}.name '{name}' not found.", f"{path}.name")
        if "containerPath" in volume:
            yield from container_path(path, volume, name in shown, name in shared)


def container_path(path: str, volume: Object, shown: bool, shared: bool) -> Iterator[Cause]:
    what = f"ContainerPath volume '{volume['name']}'"
    if shown:
        yield Cause(f"{what} must be mapped to a filesystem, not a disk", path)
    if not shared:
        yield Cause(f"{what} must have a matching filesystem defined in spec.domain.devices.filesystems", path)
    for prefix in RESERVED_PATHS:
        if volume["containerPath"]["path"].startswith(prefix):
            yield Cause(f"{what} uses reserved path prefix '{prefix}'", f"{path}.containerPath.path")
