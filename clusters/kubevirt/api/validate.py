"""The validating webhooks: one verdict for each kind, on the object as the mutators left it."""

from collections.abc import Callable, Iterator

from clusters.kubevirt.api.instance_rules import instance_causes
from clusters.kubevirt.api.refusals import NOT_SUPPORTED, REQUIRED, Cause
from virtflow.kube import Object

__all__ = ["COMPONENTS", "instance_update_causes", "new_instance_causes", "replica_set_causes", "vm_causes"]

COMPONENTS = frozenset(
    f"system:serviceaccount:kubevirt:kubevirt-{name}" for name in ("apiserver", "controller", "handler")
)
"""KubeVirt's own users, who may change what nobody else may."""

RUN_STRATEGIES = ("Halted", "Manual", "Always", "RerunOnFailure", "Once", "WaitAsReceiver")
RESERVED_LABELS = (
    "kubevirt.io/created-by",
    "kubevirt.io/migrationJobUID",
    "kubevirt.io/nodeName",
    "kubevirt.io/migrationTargetNodeName",
    "kubevirt.io/schedulable",
    "kubevirt.io/install-strategy",
)

OPERATORS: dict[str, Callable[[str | None, list[str]], bool]] = {
    "In": lambda value, among: value in among,
    "NotIn": lambda value, among: value not in among,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
}


def vm_causes(vm: Object) -> Iterator[Cause]:
    """What is wrong with a VirtualMachine."""
    spec = vm["spec"]
    yield from instance_causes("spec.template.spec", template_spec(spec))
    yield from data_volume_templates(spec)
    yield from run_strategy(spec)


def template_spec(spec: Object) -> Object:
    """The instance's spec in a template; a template may leave it out, and then it is an empty one."""
    found: Object = spec["template"].get("spec", {"domain": {"devices": {}}})
    return found


def run_strategy(spec: Object) -> Iterator[Cause]:
    strategy = spec.get("runStrategy")
    if strategy is not None and "running" in spec:
        yield Cause(
            "Running and RunStrategy are mutually exclusive. "
            "Note that Running is deprecated, please use RunStrategy instead",
            "spec.running",
        )
    elif strategy is None and "running" not in spec:
        yield Cause("RunStrategy must be specified", "spec.running")
    elif strategy is not None and strategy not in RUN_STRATEGIES:
        yield Cause(f"Invalid RunStrategy ({strategy})", "spec.runStrategy")


def data_volume_templates(spec: Object) -> Iterator[Cause]:
    volumes = template_spec(spec).get("volumes", [])
    used = {volume["dataVolume"]["name"] for volume in volumes if "dataVolume" in volume}
    used |= {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    for index, template in enumerate(spec.get("dataVolumeTemplates", ())):
        path = f"spec.dataVolumeTemplate[{index}]"
        name = template.get("metadata", {}).get("name")
        if not name:
            message = f"'name' field must not be empty for DataVolumeTemplate entry {path}."
            yield Cause(message, f"{path}.name", REQUIRED)
        elif name not in used:
            yield Cause(
                f"DataVolumeTemplate entry {path} must be referenced in the VMI template's 'volumes' list", path
            )


def new_instance_causes(vmi: Object, user: str) -> Iterator[Cause]:
    """What is wrong with a VirtualMachineInstance that `user` creates."""
    yield from instance_causes("spec", vmi["spec"])
    if user not in COMPONENTS and reserved_labels(vmi):
        yield Cause(
            "creation of the following reserved kubevirt.io/ labels on a VMI object is prohibited",
            "metadata.labels",
            NOT_SUPPORTED,
        )


def instance_update_causes(vmi: Object, old: Object, user: str) -> Iterator[Cause]:
    """What `user` may not do to a VirtualMachineInstance: its spec and KubeVirt's labels are KubeVirt's."""
    if user in COMPONENTS:
        return
    if vmi["spec"] != old["spec"]:
        yield Cause("update of VMI object is restricted", reason=NOT_SUPPORTED)
    elif reserved_labels(vmi) != reserved_labels(old):
        yield Cause(
            "modification of the following reserved kubevirt.io/ labels on a VMI object is prohibited",
            "metadata.labels",
            NOT_SUPPORTED,
        )


def reserved_labels(obj: Object) -> dict[str, str]:
    labels: dict[str, str] = obj.get("metadata", {}).get("labels", {})
    return {key: value for key, value in labels.items() if key in RESERVED_LABELS}


def replica_set_causes(replica_set: Object) -> Iterator[Cause]:
    """What is wrong with a VirtualMachineInstanceReplicaSet."""
    spec = replica_set["spec"]
    yield from instance_causes("spec.template.spec", template_spec(spec))
    yield from selector(spec["selector"], spec["template"].get("metadata", {}).get("labels", {}))


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
    """Whether a label selector, found valid, selects these labels."""
    return all(labels.get(key) == value for key, value in wanted.get("matchLabels", {}).items()) and all(
        OPERATORS[requirement["operator"]](labels.get(requirement["key"]), requirement.get("values", []))
        for requirement in wanted.get("matchExpressions", ())
    )
