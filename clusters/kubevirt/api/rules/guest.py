"""The machine a guest is given, its firmware and its devices other than disks and networks."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from clusters.kubevirt.api.defaults import HYPERV_NEEDS
from clusters.kubevirt.api.refusals import FORBIDDEN, INVALID, NOT_SUPPORTED, REQUIRED, Cause
from clusters.kubevirt.api.rules.disks import file_path
from virtflow.kube import Object

__all__ = [
    "acpi_tables",
    "architecture",
    "devices",
    "firmware",
    "hyperv",
    "inputs",
    "io_threads",
    "machine_type",
]

MACHINE_TYPES = {"amd64": ("q35*", "pc-q35*"), "arm64": ("virt*",), "s390x": ("s390-ccw-virtio*",)}
IO_THREADS_POLICIES = ("shared", "auto", "supplementalPool")
SOUND_MODELS = ("", "ich9", "ac97")
PANIC_MODELS = ("hyperv", "isa", "pvpanic")
VIDEO_TYPES = ("vga", "cirrus", "virtio", "ramfb", "bochs")
LAUNCH_SECURITY = {"sev": "SEV", "snp": "SNP", "tdx": "TDX"}


def machine_type(field: str, spec: Object) -> Iterator[Cause]:
    machine = spec["domain"].get("machine", {}).get("type", "")
    supported = MACHINE_TYPES.get(spec.get("architecture", ""), MACHINE_TYPES["amd64"])
    if machine and not any(fnmatchcase(machine, pattern) for pattern in supported):
        path = f"{field}.domain.machine.type"
        yield Cause(f"{path} is not supported: {machine} (allowed values: [{' '.join(supported)}])", path)


def acpi_tables(field: str, spec: Object) -> Iterator[Cause]:
    tables = spec["domain"].get("firmware", {}).get("acpi")
    if tables is None:
        return
    path = f"{field}.acpi"
    found = [name for name in ("slicNameRef", "msdmNameRef") if tables.get(name)]
    if not found:
        yield Cause("ACPI was set but no SLIC nor MSDM volume reference was set", path)
    for name in found:
        volume = next((each for each in spec.get("volumes", ()) if each["name"] == tables[name]), None)
        if volume is None:
            yield Cause(f"{path} does not have a matching Volume.", f"{path}.{name}")
        elif "secret" not in volume:
            yield Cause(f"{path} refers to Volume of unsupported type.", f"{path}.{name}")


def inputs(field: str, spec: Object) -> Iterator[Cause]:
    for index, device in enumerate(spec["domain"]["devices"].get("inputs", ())):
        path = f"{field}.domain.devices.inputs[{index}]"
        if device.get("bus", "") not in ("virtio", "usb", ""):
            yield Cause("Input device can have only virtio or usb bus.", f"{path}.bus")
        if device["type"] != "tablet":
            yield Cause("Input device can have only tablet type.", f"{path}.type")


def io_threads(field: str, spec: Object) -> Iterator[Cause]:
    policy = spec["domain"].get("ioThreadsPolicy")
    if policy is None:
        return
    if policy not in IO_THREADS_POLICIES:
        yield Cause(f"Invalid IOThreadsPolicy ({policy})", f"{field}.domain.ioThreadsPolicy")
    count = spec["domain"].get("ioThreads", {}).get("supplementalPoolThreadCount", 0)
    if policy == "supplementalPool" and count < 1:
        message = "the number of iothreads needs to be set and positive for the dedicated policy"
        yield Cause(message, f"{field}.domain.ioThreads.count")


def firmware(field: str, spec: Object) -> Iterator[Cause]:
    domain = spec["domain"]
    path = f"{field}.domain.firmware"
    loader = domain.get("firmware", {}).get("bootloader", {})
    if "efi" in loader and "bios" in loader:
        where = f"{path}.bootloader"
        yield Cause(f"{where} has both EFI and BIOS configured, but they are mutually exclusive.", where)
    yield from kernel_boot(f"{path}.kernelBoot", domain.get("firmware", {}).get("kernelBoot", {}))
    secure = "efi" in loader and loader["efi"].get("secureBoot", True)
    smm = domain.get("features", {}).get("smm")
    has_smm = smm is not None and smm.get("enabled", True)
    if secure and not has_smm and "tdx" not in domain.get("launchSecurity", {}):
        where = f"{field}.domain"
        yield Cause(
            f"{where} has EFI SecureBoot enabled. SecureBoot requires SMM, which is currently disabled.", where
        )


def kernel_boot(path: str, boot: Object) -> Iterator[Cause]:
    if "container" not in boot:
        if boot.get("kernelArgs"):
            yield Cause("kernel arguments cannot be provided without an external kernel", f"{path}.kernelArgs")
        return
    container, where = boot["container"], f"{path}.container"
    if not container["image"]:
        yield Cause(f"{where} must be defined with an image", f"{where}.image", REQUIRED)
    files = [name for name in ("kernelPath", "initrdPath") if container.get(name)]
    if not files:
        yield Cause(
            f"{where} must be defined with at least one of the following: kernelPath, initrdPath", where, REQUIRED
        )
    for name in files:
        yield from file_path(f"{where}.{name}", container[name])


def devices(field: str, spec: Object) -> Iterator[Cause]:
    """The rest of a domain, in KubeVirt's order."""
    domain = spec["domain"]
    found, where = domain["devices"], f"{field}.domain.devices"
    if sum(has_ram_framebuffer(gpu) for gpu in found.get("gpus", ())) > 1:
        yield Cause("configuring multiple displays with ramfb is not valid ", f"{field}.GPUs")
    if found.get("hostDevices"):
        yield Cause("Host Devices feature gate is not enabled in kubevirt-config", f"{field}.HostDevices")
    yield from sound(f"{field}.Sound", found)
    if "launchSecurity" in domain:
        yield from launch_security(field, spec)
    yield from gated_devices(where, found)
    yield from filesystems(where, spec)
    if "video" in found and not found.get("autoattachGraphicsDevice", True):
        message = "Video configuration is not allowed when autoattachGraphicsDevice is set to false"
        yield Cause(message, f"{field}.video")
    for index, device in enumerate(found.get("panicDevices", ())):
        if device.get("model", PANIC_MODELS[0]) not in PANIC_MODELS:
            yield Cause(f"invalid PanicDeviceModel({device['model']})", f"{where}.panicDevices[{index}].model")
    if "reservedOverhead" in domain.get("memory", {}):
        message = "Reserved overhead memlock feature gate is not enabled in kubevirt-config"
        yield Cause(message, f"{field}.domain.memory.reservedOverhead")


def sound(path: str, found: Object) -> Iterator[Cause]:
    card = found.get("sound")
    if card is not None and card.get("model", "") not in SOUND_MODELS:
        yield Cause("Sound device type is not supported. Options: 'ich9' or 'ac97'", path)
    if card is not None and not card["name"]:
        yield Cause("Sound device requires a name field.", path)


def gated_devices(where: str, found: Object) -> Iterator[Cause]:
    if found.get("autoattachVSOCK"):
        yield Cause("VSOCK feature gate is not enabled in kubevirt-config", f"{where}.autoattachVSOCK")
    if any(disk.get("lun", {}).get("reservation") for disk in found.get("disks", ())):
        yield Cause("persistent reservation is not enabled in kubevirt config", f"{where}.disks.luns.reservation")
    if "downwardMetrics" in found:
        message = "downwardMetrics virtio serial is not allowed: DownwardMetrics feature gate is not enabled"
        yield Cause(message, f"{where}.downwardMetrics")


def has_ram_framebuffer(gpu: Object) -> bool:
    display = gpu.get("virtualGPUOptions", {}).get("display")
    if display is None or not display.get("enabled", True):
        return False
    return "ramFB" not in display or bool(display["ramFB"].get("enabled"))


def filesystems(where: str, spec: Object) -> Iterator[Cause]:
    stored = {
        volume["name"]
        for volume in spec.get("volumes", ())
        if volume.keys() & {"persistentVolumeClaim", "dataVolume"}
    }
    for filesystem in spec["domain"]["devices"].get("filesystems", ()):
        if filesystem["name"] in stored:
            message = "virtiofs is not allowed: virtiofs feature gate is not enabled for PVC"
            yield Cause(message, f"{where}.filesystems")


def launch_security(field: str, spec: Object) -> Iterator[Cause]:
    processor, path = spec.get("architecture", ""), f"{field}.launchSecurity"
    if processor not in ("amd64", "s390x"):
        yield Cause(f"No launchSecurity support for architecture: {processor}", f"{field}.architecture")
    if processor != "amd64":
        return
    chosen = [name for name in LAUNCH_SECURITY if name in spec["domain"]["launchSecurity"]]
    if len(chosen) != 1:
        yield Cause("One and only one launchSecurity type can be set", path, FORBIDDEN)
    elif chosen == ["tdx"]:
        yield Cause("WorkloadEncryptionTDX feature gate is not enabled in kubevirt-config", path)
    else:
        yield from encryption(path, LAUNCH_SECURITY[chosen[0]], spec)


def encryption(path: str, name: str, spec: Object) -> Iterator[Cause]:
    """What AMD's encryption of memory asks of the rest."""
    domain = spec["domain"]
    efi = domain.get("firmware", {}).get("bootloader", {}).get("efi")
    if efi is None:
        yield Cause(f"{name} requires OVMF (UEFI)", path)
    elif efi.get("secureBoot", True):
        yield Cause(f"{name} does not work along with SecureBoot", path)
    if efi is not None and name == "SNP" and efi.get("persistent"):
        yield Cause(f"{name} does not work along with Persistent EFI variables", path)
    if "attestation" in domain["launchSecurity"].get("sev", {}) and spec.get("startStrategy") != "Paused":
        yield Cause("SEV attestation requires VMI StartStrategy 'Paused'", path)
    for interface in domain["devices"].get("interfaces", ()):
        if "bootOrder" in interface:
            yield Cause(f"{name} does not work with bootable NICs: {interface['name']}", path)


def hyperv(field: str, spec: Object) -> Iterator[Cause]:
    """Asked of an instance only, and its paths are KubeVirt's, which has the features' own path twice."""
    features = spec["domain"].get("features", {})
    found = features.get("hyperv")
    if found is None:
        return
    path = f"{field}.domain.features.hyperv"
    inner = f"{path}.domain.features.hyperv"
    for name, needed in HYPERV_NEEDS:
        if found.get(name, {}).get("enabled") and not found.get(needed, {}).get("enabled"):
            yield Cause(
                f"'{inner}.{name}' requires '{inner}.{needed}', which was disabled.", f"{inner}.{name}", INVALID
            )
    nested = "evmcs" in found and found["evmcs"].get("enabled", True)
    if nested and not spec["domain"].get("cpu", {}).get("features"):
        yield Cause("vmx cpu feature is required when evmcs is set", "spec.domain.cpu.features", REQUIRED)
    if "hypervPassthrough" in features:
        yield Cause(
            "Cannot explicitly set hyperV features if HypervPassthrough is being used. "
            "Please use either HyperV or HypervPassthrough.",
            path,
        )


def architecture(field: str, spec: Object) -> Iterator[Cause]:
    """Asked of an instance only. The rules of other processors than amd64 are not known here."""
    found = spec.get("architecture", "")
    if found not in MACHINE_TYPES:
        yield Cause(f"unsupported architecture: {found}", f"{field}.architecture")
    if found != "amd64":
        return
    where, plugged = f"{field}.domain.devices", spec["domain"]["devices"]
    if "watchdog" in plugged and ("i6300esb" not in plugged["watchdog"] or "diag288" in plugged["watchdog"]):
        yield Cause("amd64 only supports I6300ESB watchdog device", f"{where}.watchdog", NOT_SUPPORTED)
    video = plugged.get("video", {"type": VIDEO_TYPES[0]}).get("type", "")
    if video not in VIDEO_TYPES:
        message = f"video model '{video}' is not supported on amd64 architecture"
        yield Cause(message, f"{where}.video.type", NOT_SUPPORTED)
