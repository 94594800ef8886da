"""How much an instance asks for: memory, CPUs, and whether the figures go together."""

from collections.abc import Iterator
from math import ceil

from clusters.kubevirt.api.quantities import Quantity
from clusters.kubevirt.api.refusals import NOT_SUPPORTED, REQUIRED, Cause
from virtflow.kube import Object

__all__ = ["cpu", "cpu_options", "hugepages", "memory", "memory_is_requested", "pinning", "realtime"]

LEAST_MEMORY = Quantity.parse("1M")
FEATURE_POLICIES = ("", "force", "require", "optional", "disable", "forbid")


def memory(field: str, spec: Object) -> Iterator[Cause]:
    request, limit = amount(spec, "requests", "memory"), amount(spec, "limits", "memory")
    path = f"{field}.domain.resources.requests.memory"
    if request.amount < 0:
        yield negative(path, request)
    elif 0 < request.amount < LEAST_MEMORY.amount:
        yield Cause(f"{path} '{request}': must be greater than or equal to 1M.", path)
    if limit.amount < 0:
        yield negative(f"{field}.domain.resources.limits.memory", limit)
    yield from within_limit(field, "memory", request, limit)


def cpu(field: str, spec: Object) -> Iterator[Cause]:
    request, limit = amount(spec, "requests", "cpu"), amount(spec, "limits", "cpu")
    if request.amount < 0:
        yield negative(f"{field}.domain.resources.requests.cpu", request)
    if limit.amount < 0:
        yield negative(f"{field}.domain.resources.limits.cpu", limit)
    yield from within_limit(field, "cpu", request, limit)


def negative(path: str, found: Quantity) -> Cause:
    return Cause(f"{path} '{found}': must be greater than or equal to 0.", path)


def within_limit(field: str, resource: str, request: Quantity, limit: Quantity) -> Iterator[Cause]:
    if 0 < limit.amount < request.amount:
        path = f"{field}.domain.resources.requests.{resource}"
        yield Cause(f"{path} '{request}' is greater than {field}.domain.resources.limits.{resource} '{limit}'", path)


def hugepages(field: str, spec: Object) -> Iterator[Cause]:
    guest_memory = spec["domain"].get("memory", {})
    if "hugepages" not in guest_memory:
        return
    text = guest_memory["hugepages"].get("pageSize", "")
    size_path = f"{field}.domain.memory.hugepages.pageSize"
    try:
        size = Quantity.parse(text)
    except ValueError:
        wrong = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        yield Cause(f"{size_path} '{text}': {wrong}", size_path)
        return
    request = amount(spec, "requests", "memory")
    found = [request, Quantity.parse(guest_memory.get("guest", "0")), amount(spec, "limits", "memory")]
    wanted = next((each.amount for each in found if each.amount), 0)
    path = f"{field}.domain.resources.requests.memory"
    if wanted and wanted < size.amount:
        yield Cause(f"{path} '{request}' must be equal to or larger than page size {size_path} '{text}'", path)
    elif size.amount and wanted % size.amount:
        yield Cause(f"{path} '{request}' is not a multiple of the page size {size_path} '{text}'", path)


def pinning(field: str, spec: Object) -> Iterator[Cause]:
    """What dedicated CPUs ask of the rest."""
    processor = spec["domain"].get("cpu", {})
    if not processor.get("dedicatedCpuPlacement"):
        return
    resources, where = f"{field}.domain.resources", f"{field}.domain.cpu.dedicatedCpuPlacement"
    yield from memory_is_given(field, spec)
    for kind in ("requests", "limits"):
        found = amount(spec, kind, "cpu")
        if found.amount > 0 and found.amount % 1:
            yield Cause(f"provided resources CPU {kind} must be an interger", f"{resources}.{kind}.cpu")
    memory_request, memory_limit = amount(spec, "requests", "memory"), amount(spec, "limits", "memory")
    if memory_request.amount > 0 and memory_limit.amount > 0 and memory_request != memory_limit:
        path = f"{resources}.requests.memory"
        yield Cause(f"{path} must be equal to {resources}.limits.memory", path)
    yield from pinned_cpus(resources, where, spec)
    if (threads := processor.get("threads", 0)) > 2:
        path = f"{field}.domain.cpu.threads"
        yield Cause(
            f"Not more than two threads must be provided at {path} (got {threads}) when "
            "DedicatedCPUPlacement is true",
            where,
        )


def pinned_cpus(resources: str, where: str, spec: Object) -> Iterator[Cause]:
    """Their number is said in one way, or in the same way twice."""
    request, limit, count = whole(spec, "requests"), whole(spec, "limits"), number_of_cpus(spec["domain"]["cpu"])
    cores = where.replace("dedicatedCpuPlacement", "cores")
    amounts = f"{resources}.requests.cpu or {resources}.limits.cpu"
    if request == limit == count == 0:
        yield Cause(f"either {amounts} or {cores} must be provided when DedicatedCPUPlacement is true ", where)
    if request > 0 and limit > 0 and request != limit:
        yield Cause(f"{amounts} must be equal when DedicatedCPUPlacement is true ", where)
    if (request > 0 or limit > 0) and count > 0 and count not in (request, limit):
        message = f"{amounts} must not be provided at the same time with {cores} when DedicatedCPUPlacement is true "
        yield Cause(message, where)


def memory_is_given(field: str, spec: Object) -> Iterator[Cause]:
    guest_memory = spec["domain"].get("memory", {})
    if (
        amount(spec, "limits", "memory").amount
        or amount(spec, "requests", "memory").amount
        or "hugepages" in guest_memory
        or Quantity.parse(guest_memory.get("guest", "0")).amount
    ):
        return
    domain = f"{field}.domain"
    limit = f"{domain}.resources.limits.memory"
    yield Cause(
        f"{domain}.resources.requests.memory, {limit}, {domain}.memory.hugepages or {domain}.memory.guest "
        "should be provided",
        limit,
    )


def cpu_options(field: str, spec: Object) -> Iterator[Cause]:
    domain = spec["domain"]
    processor = domain.get("cpu", {})
    dedicated = processor.get("dedicatedCpuPlacement", False)
    where = f"{field}.domain.cpu"
    if "guestMappingPassthrough" in processor.get("numa", {}):
        path = f"{where}.numa.guestMappingPassthrough"
        if not dedicated:
            yield Cause(
                f"{where}.dedicatedCpuPlacement must be set to true when NUMA topology strategy is set in {path}",
                path,
            )
        if "hugepages" not in domain.get("memory", {}):
            wanted = f"{field}.domain.memory.hugepages"
            yield Cause(f"{wanted} must be requested when NUMA topology strategy is set in {path}", path)
    if processor.get("isolateEmulatorThread") and not dedicated:
        yield Cause(
            "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement",
            f"{where}.isolateEmulatorThread",
        )
    for index, feature in enumerate(processor.get("features", ())):
        policy = feature.get("policy", "")
        if policy not in FEATURE_POLICIES:
            yield Cause(
                f"CPU feature {feature['name']} uses policy {policy} that is not supported.",
                f"{where}.features[{index}].policy",
                NOT_SUPPORTED,
            )
    if 0 < processor.get("maxSockets", 0) < processor.get("sockets", 0):
        yield Cause(
            "Number of sockets in CPU topology is greater than the maximum sockets allowed", f"{where}.sockets"
        )


def realtime(field: str, spec: Object) -> Iterator[Cause]:
    processor = spec["domain"].get("cpu", {})
    if "realtime" not in processor:
        return
    where = f"{field}.domain.cpu"
    if not processor.get("dedicatedCpuPlacement"):
        path = f"{where}.dedicatedCpuPlacement"
        yield Cause(f"{path} must be set to true when {where}.realtime is used", path, REQUIRED)
    if "guestMappingPassthrough" not in processor.get("numa", {}):
        path = f"{where}.numa.guestMappingPassthrough"
        yield Cause(f"{path} must be defined when {where}.realtime is used", path, REQUIRED)


def memory_is_requested(field: str, spec: Object) -> Iterator[Cause]:
    guest_memory = spec["domain"].get("memory", {})
    if amount(spec, "requests", "memory").amount or guest_memory.keys() & {"guest", "hugepages"}:
        return
    domain = f"{field}.domain"
    yield Cause(
        f"no memory requested, at least one of '{domain}.memory.guest', '{domain}.memory.hugepages.pageSize' or "
        f"'{domain}.resources.requests.memory' must be set",
        reason=REQUIRED,
    )


def amount(spec: Object, kind: str, resource: str) -> Quantity:
    """What is requested, or the limit; 0 where nothing is said."""
    return Quantity.parse(spec["domain"].get("resources", {}).get(kind, {}).get(resource, "0"))


def whole(spec: Object, kind: str) -> int:
    """CPUs, each that has begun counted."""
    return ceil(amount(spec, kind, "cpu").amount)


def number_of_cpus(processor: Object) -> int:
    parts = [processor.get(part, 0) for part in ("sockets", "cores", "threads")]
    if not any(parts):
        return 0
    product = 1
    for part in parts:
        product *= part or 1
    return product
