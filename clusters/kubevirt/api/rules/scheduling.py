"""Where an instance may run, in the words of Kubernetes' own validation of pods."""

import json
from collections.abc import Iterator, Sequence

from clusters.kubevirt.api.refusals import Cause
from clusters.kubevirt.api.rules.names import dns_label, dns_subdomain, label_key
from virtflow.kube import Object

__all__ = ["affinity", "topology_spread"]

REQUIRED_TERMS = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED_TERMS = "preferredDuringSchedulingIgnoredDuringExecution"
ACTIONS = ("DoNotSchedule", "ScheduleAnyway")


def affinity(field: str, spec: Object) -> Iterator[Cause]:
    """The paths are KubeVirt's, which leaves out the affinity itself."""
    found = spec.get("affinity", {})
    yield from node_affinity(f"{field}.nodeAffinity", found.get("nodeAffinity", {}))
    for name in ("podAffinity", "podAntiAffinity"):
        yield from pod_affinity(f"{field}.{name}", found.get(name, {}))


def node_affinity(path: str, found: Object) -> Iterator[Cause]:
    if REQUIRED_TERMS in found:
        where = f"{path}.{REQUIRED_TERMS}.nodeSelectorTerms"
        terms = found[REQUIRED_TERMS]["nodeSelectorTerms"]
        if not terms:
            yield missing(where, "must have at least one node selector term")
        for index, term in enumerate(terms):
            yield from node_selector_term(f"{where}[{index}]", term)
    for index, preferred in enumerate(found.get(PREFERRED_TERMS, ())):
        where = f"{path}.{PREFERRED_TERMS}[{index}]"
        yield from weight(where, preferred["weight"])
        yield from node_selector_term(f"{where}.preference", preferred["preference"])


def node_selector_term(path: str, term: Object) -> Iterator[Cause]:
    for index, wanted in enumerate(term.get("matchExpressions", ())):
        where = f"{path}.matchExpressions[{index}]"
        yield from node_requirement(where, wanted["operator"], wanted.get("values", []))
        yield from key(f"{where}.key", wanted["key"])
    for index, wanted in enumerate(term.get("matchFields", ())):
        yield from node_field(f"{path}.matchFields[{index}]", wanted)


def node_requirement(path: str, operator: str, values: Sequence[str]) -> Iterator[Cause]:
    where = f"{path}.values"
    if operator in ("In", "NotIn"):
        if not values:
            yield missing(where, "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            yield forbidden(where, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            yield missing(where, "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        yield invalid(f"{path}.operator", operator, "not a valid selector operator")


def node_field(path: str, wanted: Object) -> Iterator[Cause]:
    values = wanted.get("values", [])
    if wanted["operator"] not in ("In", "NotIn"):
        yield invalid(f"{path}.operator", wanted["operator"], "not a valid selector operator")
    elif len(values) != 1:
        yield missing(
            f"{path}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        )
    if wanted["key"] != "metadata.name":
        yield invalid(f"{path}.key", wanted["key"], "not a valid field selector key")
        return
    for index, value in enumerate(values):
        for fault in dns_subdomain(value):
            yield invalid(f"{path}.values[{index}]", value, fault)


def pod_affinity(path: str, found: Object) -> Iterator[Cause]:
    for index, term in enumerate(found.get(REQUIRED_TERMS, ())):
        yield from pod_affinity_term(f"{path}.{REQUIRED_TERMS}[{index}]", term)
    for index, preferred in enumerate(found.get(PREFERRED_TERMS, ())):
        where = f"{path}.{PREFERRED_TERMS}[{index}]"
        yield from weight(where, preferred["weight"])
        yield from pod_affinity_term(f"{where}.podAffinityTerm", preferred["podAffinityTerm"])


def pod_affinity_term(path: str, term: Object) -> Iterator[Cause]:
    for name in ("labelSelector", "namespaceSelector"):
        yield from label_selector(f"{path}.{name}", term.get(name, {}))
    for namespace in term.get("namespaces", ()):
        for fault in dns_label(namespace):
            yield invalid(f"{path}.namespace", namespace, fault)
    if not term["topologyKey"]:
        yield missing(f"{path}.topologyKey", "can not be empty")
    yield from key(f"{path}.topologyKey", term["topologyKey"])


def label_selector(path: str, selector: Object) -> Iterator[Cause]:
    for name in selector.get("matchLabels", {}):
        yield from key(f"{path}.matchLabels", name)
    for index, wanted in enumerate(selector.get("matchExpressions", ())):
        where, operator = f"{path}.matchExpressions[{index}]", wanted["operator"]
        values = wanted.get("values", [])
        if operator in ("In", "NotIn") and not values:
            yield missing(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield invalid(f"{where}.operator", operator, "not a valid selector operator")
        yield from key(f"{where}.key", wanted["key"])


def topology_spread(field: str, spec: Object) -> Iterator[Cause]:
    path = f"{field}.topologySpreadConstraints"
    constraints = spec.get("topologySpreadConstraints", [])
    pairs = [(each["topologyKey"], each["whenUnsatisfiable"]) for each in constraints]
    last = {pair: index for index, pair in enumerate(pairs)}
    for index, constraint in enumerate(constraints):
        where = f"{path}[{index}]"
        topology, action = pairs[index]
        if constraint["maxSkew"] <= 0:
            yield invalid(f"{where}.maxSkew", constraint["maxSkew"], "must be greater than zero")
        if not topology:
            yield missing(f"{where}.topologyKey", "can not be empty")
        else:
            yield from key(f"{where}.topologyKey", topology)
        if action not in ACTIONS:
            supported = ", ".join(json.dumps(each) for each in ACTIONS)
            unsupported = f"Unsupported value: {json.dumps(action)}: supported values: {supported}"
            yield fault_at(f"{where}.whenUnsatisfiable", unsupported)
        yield from label_selector(f"{path}.labelSelector", constraint.get("labelSelector", {}))
        if last[pairs[index]] > index:
            pair = json.dumps(f"{{{topology}, {action}}}")
            yield fault_at(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"Duplicate value: {pair}")


def weight(path: str, found: int) -> Iterator[Cause]:
    if not 0 < found <= 100:
        yield invalid(f"{path}.weight", found, "must be in the range 1-100")


def key(path: str, name: str) -> Iterator[Cause]:
    for fault in label_key(name):
        yield invalid(path, name, fault)


def invalid(path: str, value: str | int, what: str) -> Cause:
    return fault_at(path, f"Invalid value: {json.dumps(value)}: {what}")


def missing(path: str, what: str) -> Cause:
    return fault_at(path, f"Required value: {what}")


def forbidden(path: str, what: str) -> Cause:
    return fault_at(path, f"Forbidden: {what}")


def fault_at(path: str, what: str) -> Cause:
    return Cause(f"{path}: {what}", path)
