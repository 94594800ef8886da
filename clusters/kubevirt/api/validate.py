"""The validating webhooks: one verdict for each kind, on the object as the mutators left it."""

from collections.abc import Callable, Iterator
from copy import deepcopy

from clusters.kubevirt.api.defaults import hotplug_fault, set_template_defaults
from clusters.kubevirt.api.refusals import NOT_SUPPORTED, REQUIRED, Cause
from clusters.kubevirt.api.rules import guest, instance_causes, lone_instance_causes
from clusters.kubevirt.api.rules.networks import discontinued_bindings
from virtflow.kube import Object

__all__ = ["instance_update_causes", "new_instance_causes", "replica_set_causes", "vm_causes"]

RUN_STRATEGIES = ("Halted", "Manual", "Always", "RerunOnFailure", "Once")
RESERVED_LABELS = (
    "kubevirt.io/created-by",
    "kubevirt.io/migrationJobUID",
    "kubevirt.io/nodeName",
    "kubevirt.io/migrationTargetNodeName",
    "kubevirt.io/schedulable",
    "kubevirt.io/install-strategy",
)
GATED_ANNOTATIONS = {
    "kubevirt.io/ignitiondata": "ExperimentalIgnitionSupport feature gate",
    "hooks.kubevirt.io/hookSidecars": "sidecar feature gate",
}

OPERATORS: dict[str, Callable[[str | None, list[str]], bool]] = {
    "In": lambda value, among: value in among,
    "NotIn": lambda value, among: value not in among,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}


def vm_causes(vm: Object, is_update: bool, from_kubevirt: bool) -> Iterator[Cause]:
    """What is wrong with a VirtualMachine."""
    spec = deepcopy(vm["spec"])
    template = spec["template"]
    instance = template.setdefault("spec", empty_spec())
    set_template_defaults(instance)
    if not is_update:
        discontinued = list(discontinued_bindings("spec", instance))
        if discontinued:
            yield from discontinued
            return
    yield from metadata_causes("spec.template.metadata", template.get("metadata", {}), from_kubevirt)
    yield from instance_causes("spec.template.spec", instance)
    yield from data_volume_templates(spec)
    yield from run_strategy(spec)
    yield from hotplug(instance)


def empty_spec() -> Object:
    """What a template that has no spec stands for."""
    return {"domain": {"devices": {}}}


def metadata_causes(path: str, metadata: Object, from_kubevirt: bool) -> Iterator[Cause]:
    if not from_kubevirt and reserved_labels(metadata):
        yield Cause(
            "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited",
            f"{path}.labels",
            NOT_SUPPORTED,
        )
    for name, words in GATED_ANNOTATIONS.items():
        if metadata.get("annotations", {}).get(name):
            where = f"{path}.annotations"
            yield Cause(f"{words} is not enabled in kubevirt-config, invalid entry {where}.{name}", where)


def run_strategy(spec: Object) -> Iterator[Cause]:
    strategy = spec.get("runStrategy")
    if strategy is not None and "running" in spec:
        yield Cause(
            "Running and RunStrategy are mutually exclusive. "
            "Note that Running is deprecated, please use RunStrategy instead",
            "spec.running",
        )
    if strategy is None and "running" not in spec:
        yield Cause("RunStrategy must be specified", "spec.running")
    if strategy == "WaitAsReceiver":
        gate = "DecentralizedLiveMigration feature gate is not enabled in kubevirt resource"
        yield Cause(f"Invalid RunStrategy ({strategy}), {gate}", "spec.runStrategy")
    elif strategy is not None and strategy not in RUN_STRATEGIES:
        yield Cause(f"Invalid RunStrategy ({strategy})", "spec.runStrategy")


def hotplug(instance: Object) -> Iterator[Cause]:
    """What a running machine could be given more of."""
    cpu, domain = instance["domain"]["cpu"], "spec.template.spec.domain"
    if 0 < cpu.get("maxSockets", 0) < cpu.get("sockets", 0):
        message = "Number of sockets in CPU topology is greater than the maximum sockets allowed"
        yield Cause(message, f"{domain}.cpu.sockets")
    most = instance["domain"]["memory"].get("maxGuest")
    if most is not None and (fault := hotplug_fault(instance, most)):
        yield Cause(fault, f"{domain}.memory.guest")


def data_volume_templates(spec: Object) -> Iterator[Cause]:
    volumes = spec["template"]["spec"].get("volumes", [])
    used = {volume["dataVolume"]["name"] for volume in volumes if "dataVolume" in volume}
    used |= {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    for index, template in enumerate(spec.get("dataVolumeTemplates", ())):
        path = f"spec.dataVolumeTemplate[{index}]"
        wrong = data_volume(path, template)
        if wrong is not None:
            yield wrong
        elif template["metadata"]["name"] not in used:
            message = f"DataVolumeTemplate entry {path} must be referenced in the VMI template's 'volumes' list"
            yield Cause(message, path, REQUIRED)


def data_volume(path: str, template: Object) -> Cause | None:
    """What is wrong first with a template of a DataVolume."""
    if not template.get("metadata", {}).get("name"):
        where = f"{path}.name"
        return Cause(f"'name' field must not be empty for DataVolumeTemplate entry {where}.", where, REQUIRED)
    spec = template["spec"]
    if "pvc" not in spec and "storage" not in spec:
        return Cause("Missing Data volume PVC or Storage", f"{path}.PVC.Storage")
    if "pvc" in spec and "storage" in spec:
        message = "Duplicate storage definition, both target storage and target pvc defined"
        return Cause(message, f"{path}.PVC.Storage")
    return data_source(path, spec)


def data_source(path: str, spec: Object) -> Cause | None:
    target = spec["pvc"] if "pvc" in spec else spec["storage"]
    populated, sourced = target.keys() & {"dataSource", "dataSourceRef"}, spec.keys() & {"source", "sourceRef"}
    if populated and sourced:
        return Cause("External population is incompatible with Source and SourceRef", f"{path}.source")
    if not populated and not sourced:
        message = "Data volume should have either Source, SourceRef, or be externally populated"
        return Cause(message, f"{path}.source.sourceRef")
    count = len(spec.get("source", {"one": None}))
    if count != 1:
        words = "Multiple dataVolume sources" if count else "Missing dataVolume valid source"
        return Cause(words, f"{path}.source")
    return None


def new_instance_causes(vmi: Object, from_kubevirt: bool) -> Iterator[Cause]:
    """What is wrong with a VirtualMachineInstance that is created."""
    spec = vmi["spec"]
    yield from discontinued_bindings("spec", spec)
    yield from lone_instance_causes(spec)
    yield from metadata_causes("metadata", vmi.get("metadata", {}), from_kubevirt)
    yield from guest.hyperv("spec", spec)
    yield from guest.architecture("spec", spec)


def instance_update_causes(vmi: Object, old: Object) -> Iterator[Cause]:
    """What a user may not do to a VirtualMachineInstance: its spec and KubeVirt's labels are KubeVirt's."""
    if vmi["spec"] != old["spec"]:
        yield Cause("update of VMI object is restricted", reason=NOT_SUPPORTED)
    elif reserved_labels(vmi.get("metadata", {})) != reserved_labels(old.get("metadata", {})):
        message = "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited"
        yield Cause(message, reason=NOT_SUPPORTED)


def reserved_labels(metadata: Object) -> dict[str, str]:
    labels: dict[str, str] = metadata.get("labels", {})
    return {key: value for key, value in labels.items() if key in RESERVED_LABELS}


def replica_set_causes(replica_set: Object) -> Iterator[Cause]:
    """What is wrong with a VirtualMachineInstanceReplicaSet."""
    spec = replica_set["spec"]
    template = spec["template"]
    yield from instance_causes("spec.template.spec", template.get("spec", empty_spec()))
    yield from selector(spec["selector"], template.get("metadata", {}).get("labels", {}))


def selector(wanted: Object, labels: dict[str, str]) -> Iterator[Cause]:
    path = "spec.selector"
    for requirement in wanted.get("matchExpressions", ()):
        operator = requirement["operator"]
        if operator not in OPERATORS:
            yield Cause(f'"{operator}" is not a valid label selector operator', path)
            return
        if operator in ("In", "NotIn") and not requirement.get("values"):
            message = "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
            yield Cause(message, path)
            return
    if not selects(wanted, labels):
        yield Cause("selector does not match labels.", path)


def selects(wanted: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector, found valid, selects these labels; one that says nothing selects nothing."""
    expressions = wanted.get("matchExpressions", [])
    return all(labels.get(key) == value for key, value in wanted.get("matchLabels", {}).items()) and all(
        OPERATORS[requirement["operator"]](labels.get(requirement["key"]), requirement.get("values", []))
        for requirement in expressions
    )
