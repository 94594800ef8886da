"""What KubeVirt demands of an instance's spec, wherever it stands: in an instance or in a template.

A rule takes the path of the spec ("spec" or "spec.template.spec") and the decoded spec with its defaults, and yields
what is wrong. They run in KubeVirt's order, because the client sees the first ten causes joined into one message.
Where KubeVirt asks for a feature gate the stand-in has KubeVirt's own defaults: what is alpha is off.
"""

from collections.abc import Callable, Iterator

from clusters.kubevirt.api.refusals import Cause
from clusters.kubevirt.api.rules import disks, guest, memory_and_cpu, networks, pod, scheduling, volumes
from virtflow.kube import Object

__all__ = ["instance_causes", "lone_instance_causes"]

Rule = Callable[[str, Object], Iterator[Cause]]

RULES: tuple[Rule, ...] = (
    pod.hostname,
    pod.subdomain,
    memory_and_cpu.memory,
    memory_and_cpu.hugepages,
    guest.machine_type,
    guest.acpi_tables,
    memory_and_cpu.cpu,
    memory_and_cpu.pinning,
    memory_and_cpu.cpu_options,
    pod.start_strategy,
    memory_and_cpu.realtime,
    scheduling.affinity,
    scheduling.topology_spread,
    networks.networks_and_interfaces,
    disks.disks_and_volumes,
    networks.boot_order,
    guest.inputs,
    guest.io_threads,
    pod.probes,
    disks.disks,
    guest.firmware,
    volumes.volumes,
    disks.container_disk_paths,
    volumes.utility_volumes,
    pod.access_credentials,
    pod.dns,
    pod.eviction_strategy,
    guest.devices,
    pod.service_account,
)


def instance_causes(field: str, spec: Object) -> Iterator[Cause]:
    """All that is wrong with an instance's spec that stands at `field`."""
    for rule in RULES:
        yield from rule(field, spec)


def lone_instance_causes(spec: Object) -> Iterator[Cause]:
    """All that is wrong with the spec of an instance, where its template may have had no chance to be right yet."""
    yield from networks.networks_and_interfaces("spec", spec)
    yield from instance_causes("spec", spec)
    yield from volumes.volumes_in_use("spec", spec)
    yield from memory_and_cpu.memory_is_requested("spec", spec)
