"""The mutating webhooks: what virt-api fills in, and what it leaves to virt-controller.

VirtualMachine, on create, where missing (an update keeps the firmware's ids):
    spec.template.metadata.annotations: kubevirt.io/pci-topology-version
    spec.template.spec: architecture, domain.machine.type, domain.firmware.uuid and .serial
VirtualMachineInstance, on create, where missing:
    metadata: finalizer kubevirt.io/foregroundDeleteVirtualMachine, the annotation above
    spec: what `defaults` has
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

from clusters.kubevirt.api.defaults import ARCHITECTURE, MACHINE_TYPES, set_instance_defaults, set_template_defaults
from virtflow.kube import Object

__all__ = ["mutate_new_instance", "mutate_vm"]

PCI_TOPOLOGY = "kubevirt.io/pci-topology-version", "v3"
FINALIZER = "kubevirt.io/foregroundDeleteVirtualMachine"
RUNTIME_USER = 107


def mutate_vm(vm: Object, old: Object | None) -> Object:
    """A VirtualMachine with its defaults; `old` is the stored one, on an update."""
    vm = deepcopy(vm)
    template = vm["spec"]["template"]
    spec = template.setdefault("spec", {"domain": {"devices": {}}})
    spec["architecture"] = spec.get("architecture") or ARCHITECTURE
    machine = spec["domain"].setdefault("machine", {})
    machine["type"] = machine.get("type") or MACHINE_TYPES.get(spec["architecture"], MACHINE_TYPES[ARCHITECTURE])
    firmware = spec["domain"].setdefault("firmware", {})
    known = old["spec"]["template"].get("spec", {}).get("domain", {}).get("firmware", {}) if old else {}
    for name in ("uuid", "serial"):
        firmware[name] = firmware.get(name) or known.get(name) or str(uuid4())
    if old is None:
        annotate(template, spec)
    return vm


def mutate_new_instance(vmi: Object) -> Object:
    """A VirtualMachineInstance about to be created, with its defaults and its first status."""
    vmi = deepcopy(vmi)
    metadata, spec = vmi.setdefault("metadata", {}), vmi["spec"]
    finalizers = metadata.setdefault("finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)
    set_template_defaults(spec)
    set_instance_defaults(spec)
    annotate(vmi, spec)
    vmi["status"] = vmi.get("status", {}) | first_status(spec["domain"])
    return vmi


def annotate(holder: Object, spec: Object) -> None:
    """Say how the buses are laid out, where there are such."""
    machine = spec["domain"]["machine"]["type"]
    if spec["architecture"] in ("amd64", "arm64") and ("q35" in machine or machine.startswith("virt")):
        key, value = PCI_TOPOLOGY
        holder.setdefault("metadata", {}).setdefault("annotations", {}).setdefault(key, value)


def first_status(domain: Object) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cpu = domain["cpu"]
    status: Object = {
        "phase": "Pending",
        "phaseTransitionTimestamps": [{"phase": "Pending", "phaseTransitionTimestamp": now}],
        "currentCPUTopology": {name: cpu[name] for name in ("cores", "sockets", "threads") if cpu.get(name)},
        "guestOSInfo": {},
        "runtimeUser": RUNTIME_USER,
    }
    if guest := domain["memory"].get("guest"):
        status["memory"] = {"guestAtBoot": guest, "guestCurrent": guest, "guestRequested": guest}
    return status
