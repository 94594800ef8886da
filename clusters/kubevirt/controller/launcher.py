"""The virt-launcher pod of a VirtualMachineInstance: what a node would run the guest in.

Its shape is the one real KubeVirt gives it, field by field, because schedulers, quotas, metrics and tests see
pods, not guests. Its name is derived from the instance's uid, where KubeVirt lets the kube-apiserver draw one:
whoever creates an instance's pod, however often, after whatever crash, can only create this one.
"""

import hashlib
import json
import math

from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.objects import drawn_name, owner_reference
from virtflow.kube import Object

__all__ = ["launcher_pod", "memory_overhead"]

IMAGE = "registry.example/virt-launcher:v1.9.0"
QEMU_USER = 107
DEVICES = dict.fromkeys(("devices.kubevirt.io/kvm", "devices.kubevirt.io/tun", "devices.kubevirt.io/vhost-net"), "1")
CPU_ALLOCATION_RATIO = 10
"""Guest CPUs to one requested CPU where the instance requests none."""

DEFAULT_GRACE_SECONDS = 30
MEBIBYTE = 2**20
FIXED_OVERHEAD = 280 * MEBIBYTE
OVERHEAD_PER_CPU = 8 * MEBIBYTE
PAGE_TABLE_RATIO = 512
EMPTY_DIRS = ("private", "public", "sockets", "virt-bin-share-dir", "libvirt-runtime", "ephemeral-disks")
MOUNTS = {
    "private": "/var/run/kubevirt-private",
    "public": "/var/run/kubevirt",
    "ephemeral-disks": "/var/run/kubevirt-ephemeral-disks",
    "libvirt-runtime": "/var/run/libvirt",
    "sockets": "/var/run/kubevirt/sockets",
}
PASSED_ON = (
    "dnsConfig",
    "dnsPolicy",
    "priorityClassName",
    "schedulerName",
    "subdomain",
    "tolerations",
    "topologySpreadConstraints",
)


def launcher_pod(vmi: Object) -> Object:
    """The pod to create for a VMI as the webhooks left it."""
    meta, spec = vmi["metadata"], vmi["spec"]
    base = f"virt-launcher-{meta['name']}-"
    grace = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": drawn_name(base, hashlib.sha256(meta["uid"].encode()).digest()),
            "generateName": base,
            "namespace": meta["namespace"],
            "labels": {
                **meta.get("labels", {}),
                "kubevirt.io": "virt-launcher",
                "kubevirt.io/created-by": meta["uid"],
                "vm.kubevirt.io/name": meta["name"],
                "vmi.kubevirt.io/id": meta["name"],
            },
            "annotations": annotations(vmi),
            "ownerReferences": [owner_reference(vmi)],
        },
        "spec": {
            "restartPolicy": "Never",
            "hostname": spec.get("hostname") or meta["name"].partition(".")[0][:63].rstrip("-"),
            "terminationGracePeriodSeconds": grace + 30,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsUser": QEMU_USER,
                "runAsGroup": QEMU_USER,
                "fsGroup": QEMU_USER,
                "runAsNonRoot": True,
            },
            "readinessGates": [{"conditionType": "kubevirt.io/virtual-machine-unpaused"}],
            "nodeSelector": {
                **spec.get("nodeSelector", {}),
                "kubernetes.io/arch": spec["architecture"],
                "kubevirt.io/schedulable": "true",
                f"machine-type.node.kubevirt.io/{spec['domain']['machine']['type']}": "true",
            },
            "affinity": affinity(spec),
            "initContainers": [console_log(vmi), *map(container_disk, container_disks(spec))],
            "containers": [compute(vmi, grace)],
            "volumes": volumes(spec),
            **{field: spec[field] for field in PASSED_ON if field in spec},
        },
    }


def annotations(vmi: Object) -> Object:
    name, namespace = vmi["metadata"]["name"], vmi["metadata"]["namespace"]
    own = vmi["metadata"].get("annotations", {})
    kept = ("kubevirt.io/pci-topology-version", "kubevirt.io/vm-generation")

    def freezer(action: str) -> str:
        return json.dumps(["/usr/bin/virt-freezer", action, "--name", name, "--namespace", namespace])

    return {
        **{key: own[key] for key in kept if key in own},
        "descheduler.alpha.kubernetes.io/request-evict-only": "",
        "kubectl.kubernetes.io/default-container": "compute",
        "kubevirt.io/domain": name,
        "kubevirt.io/memory-overhead-bytes": str(memory_overhead(vmi)),
        "kubevirt.io/migrationTransportUnix": "true",
        "post.hook.backup.velero.io/command": freezer("--unfreeze"),
        "post.hook.backup.velero.io/container": "compute",
        "pre.hook.backup.velero.io/command": freezer("--freeze"),
        "pre.hook.backup.velero.io/container": "compute",
        "pre.hook.backup.velero.io/timeout": "60s",
    }


def affinity(spec: Object) -> Object:
    """The instance's own, with no node that has taken back the CPU model the guest was given."""
    wanted: Object = {**spec.get("affinity", {})}
    node: Object = {**wanted.get("nodeAffinity", {})}
    required: Object = node.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    current = {"key": "node-labeller.kubevirt.io/obsolete-host-model", "operator": "DoesNotExist"}
    terms = [
        {**term, "matchExpressions": [*term.get("matchExpressions", []), current]}
        for term in required.get("nodeSelectorTerms", [{}])
    ]
    node["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    wanted["nodeAffinity"] = node
    return wanted


def compute(vmi: Object, grace: int) -> Object:
    meta = vmi["metadata"]
    # Real launchers spread their time-outs so that they do not all end at once; from the uid, to stay the same.
    spread = int.from_bytes(hashlib.sha256(meta["uid"].encode()).digest()[-2:], "big") % 120
    args = {
        "--qemu-timeout": f"{240 + spread}s",
        "--name": meta["name"],
        "--uid": meta["uid"],
        "--namespace": meta["namespace"],
        "--kubevirt-share-dir": "/var/run/kubevirt",
        "--ephemeral-disk-dir": "/var/run/kubevirt-ephemeral-disks",
        "--container-disk-dir": "/var/run/kubevirt/container-disks",
        "--grace-period-seconds": str(grace + 15),
        "--hook-sidecars": "0",
        "--ovmf-path": "/usr/share/edk2/ovmf",
        "--disk-memory-limit": "2097152000",
        "--hypervisor": "kvm",
    }
    home = MOUNTS["private"]
    return {
        "name": "compute",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/virt-launcher-monitor"],
        "args": [
            *(word for pair in args.items() for word in pair),
            "--run-as-nonroot",
            "--image-volume",
            "--upgrade-ordinal-ifaces",
        ],
        "env": [
            {"name": "XDG_CACHE_HOME", "value": home},
            {"name": "XDG_CONFIG_HOME", "value": home},
            {"name": "XDG_RUNTIME_DIR", "value": "/var/run"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": resources(vmi),
        "securityContext": {
            **unprivileged(),
            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
            "runAsGroup": QEMU_USER,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            *({"name": name, "mountPath": path} for name, path in MOUNTS.items()),
            *(
                {
                    "name": volume["name"],
                    "mountPath": f"/var/run/kubevirt-image-volume/disk_{index}",
                    "readOnly": True,
                }
                for index, volume in enumerate(vmi["spec"].get("volumes", []))
                if "containerDisk" in volume
            ),
            {
                "name": "hotplug-disks",
                "mountPath": "/var/run/kubevirt/hotplug-disks",
                "mountPropagation": "HostToContainer",
            },
        ],
    }


def resources(vmi: Object) -> Object:
    domain = vmi["spec"]["domain"]
    wanted = domain.get("resources", {})
    requests, limits = dict(wanted.get("requests", {})), dict(wanted.get("limits", {}))
    overhead = memory_overhead(vmi)
    requests.setdefault("memory", str(guest_memory(domain)))
    for amounts in (requests, limits):
        if "memory" in amounts:
            memory = Quantity.parse(amounts["memory"])
            amounts["memory"] = str(Quantity(memory.amount + overhead, memory.family))
    requests.setdefault("cpu", limits.get("cpu", f"{guest_cpus(domain) * 1000 // CPU_ALLOCATION_RATIO}m"))
    return {
        "requests": {"ephemeral-storage": "50M", **requests, **DEVICES},
        "limits": {**limits, **DEVICES},
    }


def memory_overhead(vmi: Object) -> int:
    """Bytes a guest costs beside its own memory: the processes around it, its CPUs, its page tables.

    The traces settle the sum for one CPU and the page tables' share; that each further CPU takes 8 MiB of the
    former is KubeVirt's documented rule.
    """
    domain = vmi["spec"]["domain"]
    # KubeVirt takes the memory in whole kilobytes, rounded up, which shows in the last digit of a huge guest's.
    kilobytes = -(-int(guest_memory(domain).amount) // 1000)
    page_tables = kilobytes * 1000 // PAGE_TABLE_RATIO
    return FIXED_OVERHEAD + OVERHEAD_PER_CPU * guest_cpus(domain) + page_tables


def guest_memory(domain: Object) -> Quantity:
    resources = domain.get("resources", {})
    memory = (
        resources.get("requests", {}).get("memory")
        or domain.get("memory", {}).get("guest")
        or resources.get("limits", {}).get("memory")
    )
    return Quantity.parse(memory or "0")


def guest_cpus(domain: Object) -> int:
    cpu = domain.get("cpu", {})
    topology = [int(cpu[part]) for part in ("cores", "sockets", "threads") if cpu.get(part)]
    if topology:
        return math.prod(topology)
    resources = domain.get("resources", {})
    wanted = resources.get("limits", {}).get("cpu") or resources.get("requests", {}).get("cpu") or "1"
    return max(1, math.ceil(Quantity.parse(wanted).amount))


def console_log(vmi: Object) -> Object:
    return {
        "name": "guest-console-log",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": ["/usr/bin/virt-tail"],
        "args": ["--logfile", f"{MOUNTS['private']}/{vmi['metadata']['uid']}/virt-serial0-log"],
        "env": [{"name": "VIRT_LAUNCHER_LOG_VERBOSITY", "value": "2"}],
        "resources": {
            "requests": {"cpu": "5m", "memory": "35M"},
            "limits": {"cpu": "15m", "memory": "60M"},
        },
        "securityContext": unprivileged(),
        "volumeMounts": [{"name": "private", "mountPath": MOUNTS["private"], "readOnly": True}],
    }


def container_disk(volume: Object) -> Object:
    return {
        "name": f"volume{volume['name']}",
        "image": volume["containerDisk"]["image"],
        "imagePullPolicy": volume["containerDisk"].get("imagePullPolicy", "IfNotPresent"),
        "command": ["/container-disk-binary/usr/bin/container-disk"],
        "args": ["--no-op"],
        "resources": {
            "requests": {"cpu": "1m", "memory": "1M", "ephemeral-storage": "50M"},
            "limits": {"cpu": "10m", "memory": "40M"},
        },
        "securityContext": unprivileged(),
        "volumeMounts": [{"name": "launcher-volume", "mountPath": "/container-disk-binary", "readOnly": True}],
    }


def unprivileged() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": QEMU_USER,
    }


def container_disks(spec: Object) -> list[Object]:
    return [volume for volume in spec.get("volumes", []) if "containerDisk" in volume]


def image_volume(name: str, reference: str, policy: str) -> Object:
    return {"name": name, "image": {"reference": reference, "pullPolicy": policy}}


def volumes(spec: Object) -> list[Object]:
    disks = container_disks(spec)
    return [
        *({"name": name, "emptyDir": {}} for name in EMPTY_DIRS),
        *(
            image_volume(
                disk["name"],
                disk["containerDisk"]["image"],
                disk["containerDisk"].get("imagePullPolicy", "IfNotPresent"),
            )
            for disk in disks
        ),
        *([image_volume("launcher-volume", IMAGE, "IfNotPresent")] if disks else []),
        {"name": "hotplug-disks", "emptyDir": {}},
    ]
