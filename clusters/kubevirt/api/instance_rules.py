"""What KubeVirt demands of an instance's spec, wherever it stands: in an instance or in a template.

Each rule takes the path of the spec ("spec" or "spec.template.spec") and the decoded spec, and yields what is
wrong. They run in KubeVirt's order, because the client sees all causes joined into one message.
"""

import re
from collections.abc import Callable, Iterator
from typing import Literal

from clusters.kubevirt.api.device_rules import disks, interfaces, networks, volumes
from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.api.refusals import Cause
from virtflow.kube import Object

__all__ = ["instance_causes"]

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)


def instance_causes(field: str, spec: Object) -> Iterator[Cause]:
    """All that is wrong with an instance's spec that stands at `field`."""
    for rule in RULES:
        yield from rule(field, spec)


def hostname(field: str, spec: Object) -> Iterator[Cause]:
    name = spec.get("hostname", "")
    errors = []
    if name and len(name) > 63:
        errors.append("must be no more than 63 characters")
    if name and not DNS_LABEL.fullmatch(name):
        errors.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
            "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for "
            "validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        )
    if errors:
        path = f"{field}.hostname"
        yield Cause(f"{path} does not conform to the kubernetes DNS_LABEL rules : {', '.join(errors)}", path)


def not_negative(kind: Literal["requests", "limits"], resource: str) -> Callable[[str, Object], Iterator[Cause]]:
    def rule(field: str, spec: Object) -> Iterator[Cause]:
        amount = resource_amount(spec, kind, resource)
        if amount is not None and amount.amount < 0:
            path = f"{field}.domain.resources.{kind}.{resource}"
            yield Cause(f"{path} '{amount}': must be greater than or equal to 0.", path)

    return rule


def request_within_limit(resource: str) -> Callable[[str, Object], Iterator[Cause]]:
    def rule(field: str, spec: Object) -> Iterator[Cause]:
        request = resource_amount(spec, "requests", resource)
        limit = resource_amount(spec, "limits", resource)
        if request is not None and limit is not None and limit.amount > 0 and request > limit:
            resources = f"{field}.domain.resources"
            path = f"{resources}.requests.{resource}"
            yield Cause(f"{path} '{request}' is greater than {resources}.limits.{resource} '{limit}'", path)

    return rule


def guest_memory_within_limit(field: str, spec: Object) -> Iterator[Cause]:
    guest = spec["domain"].get("memory", {}).get("guest")
    limit = resource_amount(spec, "limits", "memory")
    if guest is not None and limit is not None and 0 < limit.amount < Quantity.parse(guest).amount:
        path = f"{field}.domain.memory.guest"
        yield Cause(
            f"{path} '{Quantity.parse(guest)}' must be equal to or less than the memory limit "
            f"{field}.domain.resources.limits.memory '{limit}'",
            path,
        )


def resource_amount(spec: Object, kind: str, resource: str) -> Quantity | None:
    text = spec["domain"].get("resources", {}).get(kind, {}).get(resource)
    return None if text is None else Quantity.parse(text)


RULES: tuple[Callable[[str, Object], Iterator[Cause]], ...] = (
    hostname,
    not_negative("requests", "memory"),
    not_negative("limits", "memory"),
    request_within_limit("memory"),
    guest_memory_within_limit,
    not_negative("requests", "cpu"),
    not_negative("limits", "cpu"),
    request_within_limit("cpu"),
    interfaces,
    networks,
    disks,
    volumes,
)
