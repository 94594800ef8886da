"""The mutating webhooks: what virt-api fills in, and what it leaves to virt-controller.

Judged from `metadata.generation` in recordings of a real control plane: a fresh VirtualMachine stays at 1, so
nothing in its spec is written after the create; an instance goes up by one with each phase from Scheduling on,
so its spec and its first status are complete at the create, too.

VirtualMachine, on create and update, where missing (an update keeps the firmware's ids):
    spec.template.metadata.annotations: kubevirt.io/pci-topology-version
    spec.template.spec: architecture, domain.machine.type, domain.firmware.uuid and .serial
VirtualMachineInstance, on create, where missing:
    metadata: finalizer kubevirt.io/foregroundDeleteVirtualMachine, the annotation above
    spec: architecture, evictionStrategy, networks, volumes[].containerDisk.imagePullPolicy
    spec.domain: machine.type, firmware.uuid, cpu.model, cpu.maxSockets (if sockets are given), features.acpi,
        memory.guest and .maxGuest, resources.requests, devices.interfaces
    status: phase Pending and its timestamp, currentCPUTopology, memory, guestOSInfo, runtimeUser
VirtualMachineInstance, on update: nobody but KubeVirt changes its status; another's is put back to the old one.
VirtualMachineInstanceReplicaSet: nothing; its instances get their defaults one by one.

Everything else is virt-controller's or virt-handler's: the api-version annotations, the label
kubevirt.io/nodeName, owner references, the finalizer kubevirt.io/virtualMachineControllerFinalize, the annotation
kubevirt.io/vm-generation, status.virtualMachineRevisionName, and every later status.
"""

from copy import deepcopy
from datetime import UTC, datetime
from uuid import uuid4

from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.api.validate import COMPONENTS
from virtflow.kube import Object

__all__ = ["mutate_instance_update", "mutate_new_instance", "mutate_vm"]

ARCHITECTURE = "amd64"
MACHINE_TYPE = "q35"
CPU_MODEL = "host-model"
PCI_TOPOLOGY = "kubevirt.io/pci-topology-version", "v3"
FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"
HOTPLUG_RATIO = 4
"""How many times the memory and the sockets an instance starts with it may grow to."""
RUNTIME_USER = 107


def mutate_vm(vm: Object, old: Object | None) -> Object:
    """A VirtualMachine with its defaults; `old` is the stored one, on an update."""
    vm = deepcopy(vm)
    template = vm["spec"]["template"]
    annotate(template)
    spec = template.setdefault("spec", {"domain": {"devices": {}}})
    set_machine(spec)
    firmware = spec["domain"].setdefault("firmware", {})
    known = old["spec"]["template"].get("spec", {}).get("domain", {}).get("firmware", {}) if old else {}
    for name in ("uuid", "serial"):
        firmware.setdefault(name, known.get(name) or str(uuid4()))
    return vm


def mutate_new_instance(vmi: Object) -> Object:
    """A VirtualMachineInstance about to be created, with its defaults and its first status."""
    vmi = deepcopy(vmi)
    metadata = vmi.setdefault("metadata", {})
    annotate(vmi)
    finalizers = metadata.setdefault("finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)
    spec = vmi["spec"]
    set_machine(spec)
    set_hardware(spec["domain"])
    set_memory(spec["domain"])
    set_network(spec)
    for volume in spec.get("volumes", ()):
        if disk := volume.get("containerDisk"):
            disk.setdefault("imagePullPolicy", pull_policy(disk["image"]))
    spec.setdefault("evictionStrategy", "None")
    vmi["status"] = vmi.get("status", {}) | first_status(spec["domain"])
    return vmi


def mutate_instance_update(vmi: Object, old: Object, user: str) -> Object:
    """An instance's update with the status that this user may write."""
    if user in COMPONENTS or vmi.get("status") == old.get("status"):
        return vmi
    return {**vmi, "status": old.get("status", {})}


def annotate(holder: Object) -> None:
    key, value = PCI_TOPOLOGY
    holder.setdefault("metadata", {}).setdefault("annotations", {}).setdefault(key, value)


def set_machine(spec: Object) -> None:
    spec.setdefault("architecture", ARCHITECTURE)
    spec["domain"].setdefault("machine", {}).setdefault("type", MACHINE_TYPE)


def set_hardware(domain: Object) -> None:
    domain.setdefault("firmware", {}).setdefault("uuid", str(uuid4()))
    cpu = domain.setdefault("cpu", {})
    cpu.setdefault("model", CPU_MODEL)
    if sockets := cpu.get("sockets"):
        cpu.setdefault("maxSockets", sockets * HOTPLUG_RATIO)
    domain.setdefault("features", {}).setdefault("acpi", {}).setdefault("enabled", True)


def set_memory(domain: Object) -> None:
    """Guest memory and requests from each other, or from the limits; an instance may also name neither."""
    resources = domain.setdefault("resources", {})
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    memory = domain.get("memory", {})
    requests = {name: limits[name] for name in ("cpu", "memory") if name in limits} | requests
    guest = memory.get("guest", requests.get("memory"))
    if guest is not None:
        requests.setdefault("memory", guest)
        guest = Quantity.parse(guest)
        domain["memory"] = {"maxGuest": str(guest * HOTPLUG_RATIO)} | memory | {"guest": str(guest)}
    if requests:
        resources["requests"] = requests


def set_network(spec: Object) -> None:
    devices = spec["domain"]["devices"]
    if devices.get("autoattachPodInterface", True) and not spec.get("networks") and not devices.get("interfaces"):
        devices["interfaces"] = [{"name": "default", "bridge": {}}]
        spec["networks"] = [{"name": "default", "pod": {}}]


def pull_policy(image: str) -> str:
    """Kubernetes' own default: an image without a fixed version may have changed since it was pulled."""
    return "Always" if image.endswith(":latest") or not {":", "@"} & set(image) else "IfNotPresent"


def first_status(domain: Object) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cpu = domain["cpu"]
    status: Object = {
        "phase": "Pending",
        "phaseTransitionTimestamps": [{"phase": "Pending", "phaseTransitionTimestamp": now}],
        "currentCPUTopology": {name: cpu[name] for name in ("cores", "sockets", "threads") if name in cpu},
        "guestOSInfo": {},
        "runtimeUser": RUNTIME_USER,
    }
    if guest := domain.get("memory", {}).get("guest"):
        status["memory"] = {"guestAtBoot": guest, "guestCurrent": guest, "guestRequested": guest}
    return status
