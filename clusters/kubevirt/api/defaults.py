"""What KubeVirt fills into an instance's spec, in place.

The first part is also filled into a copy of a template before its VirtualMachine is judged, so that the rules see
the instance that would come of it; the second only into an instance that is created.
"""

from collections.abc import Iterator
from math import ceil
from uuid import uuid4

from clusters.kubevirt.api.quantities import Quantity
from virtflow.kube import Object

__all__ = [
    "ARCHITECTURE",
    "HYPERV_NEEDS",
    "MACHINE_TYPES",
    "hotplug_fault",
    "set_instance_defaults",
    "set_template_defaults",
]

ARCHITECTURE = "amd64"
MACHINE_TYPES = {"amd64": "q35", "arm64": "virt", "s390x": "s390-ccw-virtio"}
CPU_MODEL = "host-model"
HOTPLUG_RATIO = 4
"""How many times the memory and the sockets an instance starts with it may grow to."""

MOST_CPUS = 512
HOTPLUG_BLOCK = 2**21
HOTPLUG_BLOCK_OF_HUGEPAGES = 2**30
LEAST_HOTPLUG_MEMORY = 2**30
SWITCHED_ON = ("acpi", "apic", "smm", "pvspinlock")
"""Features that are on when they are named."""

HYPERV_NEEDS = (
    ("evmcs", "vapic"),
    ("ipi", "vpindex"),
    ("tlbflush", "vpindex"),
    ("synictimer", "synic"),
    ("synic", "vpindex"),
)
"""Features of Hyper-V and the one each needs, as KubeVirt goes through them."""

PROBE_DEFAULTS = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def set_template_defaults(spec: Object) -> None:
    """What an instance's spec has wherever it stands."""
    spec["architecture"] = spec.get("architecture") or ARCHITECTURE
    domain = spec["domain"]
    machine = domain.setdefault("machine", {})
    machine["type"] = machine.get("type") or MACHINE_TYPES.get(spec["architecture"], MACHINE_TYPES[ARCHITECTURE])
    set_resources(domain)
    set_cpu_topology(domain)
    for volume in spec.get("volumes", ()):
        if disk := volume.get("containerDisk"):
            disk["imagePullPolicy"] = disk.get("imagePullPolicy") or pull_policy(disk["image"])
    spec.setdefault("evictionStrategy", "None")
    set_network(spec)
    set_disks(spec)


def set_resources(domain: Object) -> None:
    """The CPU request follows from the limit, the guest's memory from the request, the limit or its pages."""
    resources = domain.setdefault("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    if not is_zero(limits.get("cpu")) and is_zero(requests.get("cpu")):
        resources["requests"] = requests = {**requests, "cpu": limits["cpu"]}
    memory = domain.setdefault("memory", {})
    if "guest" in memory:
        return
    page = memory.get("hugepages", {}).get("pageSize")
    for amount in (requests.get("memory"), limits.get("memory")):
        if not is_zero(amount):
            memory["guest"] = amount
            return
    if page is not None:
        try:
            memory["guest"] = str(Quantity.parse(page))
        except ValueError:
            return


def set_cpu_topology(domain: Object) -> None:
    cpu = domain.setdefault("cpu", {})
    if any(cpu.get(part) for part in ("cores", "sockets", "threads")):
        return
    resources = domain["resources"]
    wanted = resources.get("limits", {}).get("cpu") or resources.get("requests", {}).get("cpu") or "1"
    cpu |= {"sockets": ceil(Quantity.parse(wanted).amount) % 2**32, "cores": 1, "threads": 1}


def pull_policy(image: str) -> str:
    """Kubernetes' own default: an image without a fixed version may have changed since it was pulled."""
    return "Always" if image.endswith(":latest") or not {":", "@"} & set(image) else "IfNotPresent"


def set_network(spec: Object) -> None:
    devices = spec["domain"]["devices"]
    if devices.get("autoattachPodInterface", True) and not spec.get("networks") and not devices.get("interfaces"):
        devices["interfaces"] = [{"name": "default", "bridge": {}}]
        spec["networks"] = [{"name": "default", "pod": {}}]


def set_disks(spec: Object) -> None:
    """A volume that nothing shows gets a disk."""
    devices = spec["domain"]["devices"]
    shown = {each["name"] for kind in ("disks", "filesystems") for each in devices.get(kind, ())}
    if missing := [{"name": each["name"]} for each in spec.get("volumes", ()) if each["name"] not in shown]:
        devices["disks"] = [*devices.get("disks", []), *missing]


def set_instance_defaults(spec: Object) -> None:
    """What a spec that has the template's defaults gets as an instance's."""
    domain = spec["domain"]
    firmware = domain.setdefault("firmware", {})
    firmware["uuid"] = firmware.get("uuid") or str(uuid4())
    set_features(domain)
    set_timers(domain.get("clock", {}).get("timer", {}))
    set_devices(domain["devices"], spec["architecture"])
    for name in ("readinessProbe", "livenessProbe"):
        if probe := spec.get(name):
            probe |= {key: value for key, value in PROBE_DEFAULTS.items() if probe.get(key, 0) < 1}
    cpu = domain["cpu"]
    cpu["model"] = cpu.get("model") or CPU_MODEL
    if spec["architecture"] != "arm64":
        set_hotplug(spec)


def set_features(domain: Object) -> None:
    features = domain.setdefault("features", {})
    features.setdefault("acpi", {})
    hyperv = features.get("hyperv", {})
    for feature in [*(features[name] for name in SWITCHED_ON if name in features), *hyperv.values()]:
        feature.setdefault("enabled", True)
    for feature in hyperv.values():
        for part in ("direct", "extended"):
            if part in feature:
                feature[part].setdefault("enabled", True)
    if hyperv.get("spinlocks", {}).get("enabled"):
        hyperv["spinlocks"].setdefault("spinlocks", 4096)
    set_hyperv_needs(domain, hyperv)


def set_hyperv_needs(domain: Object, hyperv: Object) -> None:
    """What a feature of Hyper-V needs is switched on, unless it is there and off: then the rules refuse it."""
    for name, needed in HYPERV_NEEDS:
        if hyperv.get(name, {}).get("enabled") and hyperv.setdefault(needed, {"enabled": True})["enabled"] is False:
            return
    if hyperv.get("evmcs", {}).get("enabled"):
        features = domain["cpu"].setdefault("features", [])
        vmx = next((feature for feature in features if feature["name"] == "vmx"), None)
        if vmx is None:
            features.append(vmx := {"name": "vmx"})
        vmx["policy"] = "require"


def set_timers(timers: Object) -> None:
    for timer in timers.values():
        timer.setdefault("present", True)


def set_devices(devices: Object, architecture: str) -> None:
    for disk in devices.get("disks", ()):
        if not disk.keys() & {"disk", "cdrom", "lun"}:
            disk["disk"] = {}
        if architecture == "amd64":
            for kind in disk.keys() & {"disk", "cdrom", "lun"}:
                disk[kind]["bus"] = disk[kind].get("bus") or "sata"
        if "cdrom" in disk:
            disk["cdrom"].setdefault("readonly", True)
            disk["cdrom"]["tray"] = disk["cdrom"].get("tray") or "closed"
        if "matchVolume" in disk.get("blockSize", {}):
            disk["blockSize"]["matchVolume"].setdefault("enabled", True)
    for device in devices.get("inputs", ()):
        device["bus"] = device.get("bus") or "usb"
        device["type"] = device["type"] or "tablet"
    if "watchdog" in devices and architecture == "amd64":
        watchdog = devices["watchdog"].setdefault("i6300esb", {})
        watchdog["action"] = watchdog.get("action") or "reset"


def set_hotplug(spec: Object) -> None:
    cpu, memory = spec["domain"]["cpu"], spec["domain"]["memory"]
    sockets, per_socket = cpu.get("sockets", 0), cpu.get("cores", 0) * cpu.get("threads", 0)
    if sockets and not cpu.get("maxSockets"):
        cpu["maxSockets"] = sockets * HOTPLUG_RATIO
        if cpu["maxSockets"] * per_socket > MOST_CPUS:
            cpu["maxSockets"] = max(MOST_CPUS // per_socket, sockets)
    if "guest" in memory and "maxGuest" not in memory:
        most = Quantity(Quantity.parse(memory["guest"]).amount * HOTPLUG_RATIO, "Ki")
        if hotplug_fault(spec, str(most)) is None:
            memory["maxGuest"] = str(most)


def hotplug_fault(spec: Object, max_guest: str) -> str | None:
    """Why the memory cannot grow to `max_guest` while the guest runs, in KubeVirt's words."""
    return next(hotplug_faults(spec, Quantity.parse(max_guest)), None)


def hotplug_faults(spec: Object, most: Quantity) -> Iterator[str]:
    domain = spec["domain"]
    cpu, memory = domain.get("cpu", {}), domain.get("memory", {})
    if "realtime" in cpu:
        yield "Memory hotplug is not compatible with realtime VMs"
    if "guestMappingPassthrough" in cpu.get("numa", {}):
        yield "Memory hotplug is not compatible with guest mapping passthrough"
    if "launchSecurity" in domain:
        yield "Memory hotplug is not compatible with encrypted VMs"
    if "guest" not in memory:
        yield "Guest memory must be configured when memory hotplug is enabled"
        return
    guest = Quantity.parse(memory["guest"])
    huge = memory.get("hugepages", {}).get("pageSize") == "1Gi"
    block = HOTPLUG_BLOCK_OF_HUGEPAGES if huge else HOTPLUG_BLOCK
    if guest > most:
        yield "Guest memory is greater than the configured maxGuest memory"
    for words, amount in (("Guest memory", guest), ("MaxGuest", most)):
        if amount.amount % block:
            yield f"{words} must be {'1Gi' if huge else '2Mi'} aligned"
    if spec.get("architecture") != "amd64":
        yield "Memory hotplug is only available for x86_64 VMs"
    if guest.amount < LEAST_HOTPLUG_MEMORY:
        yield "Memory hotplug is only available for VMs with at least 1Gi of guest memory"


def is_zero(amount: str | None) -> bool:
    return amount is None or not Quantity.parse(amount).amount
