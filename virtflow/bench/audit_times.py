"""What the audit log says of when, for the benchmark: read by itself, not by the code that is measured.

A span is from the arrival of the request that begins it to the end of the answer that ends it, by the
kube-apiserver's clock.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["MachineTimes", "TenantTimes", "machine_times", "requests_of_harness", "tenant_times"]

ADMINISTRATOR = "virtflow-admin"
HARNESS = (ADMINISTRATOR, "system:serviceaccount:virtflow-system:iam-gateway")
TENANT_OBJECTS = ("roles", "rolebindings", "serviceaccounts")
Event = dict[str, Any]


@dataclass
class MachineTimes:
    """Of one VirtualMachine."""

    asked: datetime | None = None
    running: datetime | None = None
    """The answer to the first write that says Running and ready."""


@dataclass
class TenantTimes:
    """Of one tenant's namespace."""

    created: datetime | None = None
    prepared: datetime | None = None
    """The answer to the last write that made the tenant, the default service account among them."""
    deleted: datetime | None = None
    gone: datetime | None = None


def machine_times(audit_log: Path) -> dict[tuple[str, str], MachineTimes]:
    """By namespace and name."""
    times: defaultdict[tuple[str, str], MachineTimes] = defaultdict(MachineTimes)
    for event in _events(audit_log, '"resource":"virtualmachines"'):
        if event["verb"] not in ("create", "update", "patch"):
            continue
        begin, end = _span(event)
        ref = event["objectRef"]
        machine = times[ref["namespace"], ref.get("name") or event["responseObject"]["metadata"]["name"]]
        if event["verb"] == "create":
            machine.asked = begin
        status = event.get("responseObject", {}).get("status")
        runs = isinstance(status, dict) and status.get("printableStatus") == "Running" and status.get("ready")
        if runs and machine.running is None:
            machine.running = end
    return times


def tenant_times(audit_log: Path) -> dict[str, TenantTimes]:
    """By namespace."""
    times: defaultdict[str, TenantTimes] = defaultdict(TenantTimes)
    for event in _events(audit_log, '"level":"Metadata"'):
        begin, end = _span(event)
        ref, verb = event["objectRef"], event["verb"]
        if ref.get("subresource") == "finalize":
            times[ref["name"]].gone = end
        elif ref["resource"] == "namespaces" and verb == "delete" and event["user"]["username"] == ADMINISTRATOR:
            times[ref["name"]].deleted = begin
        elif ref["resource"] == "namespaces" and verb in ("patch", "create"):
            times[ref["name"]].created = begin
        elif ref["resource"] in TENANT_OBJECTS and verb in ("patch", "create") and "subresource" not in ref:
            times[ref["namespace"]].prepared = end
    return times


def requests_of_harness(audit_log: Path, namespaces: Collection[str]) -> Counter[str]:
    """`<verb> <resource>` → how many, of the platform's administrator and of the gateway, in some namespaces."""
    made: Counter[str] = Counter()
    for event in _events(audit_log, '"user":{"username":"'):
        ref = event["objectRef"]
        namespace = ref["name"] if ref["resource"] == "namespaces" else ref.get("namespace")
        if namespace in namespaces and event["user"]["username"] in HARNESS:
            made[" ".join((event["verb"], "/".join(filter(None, (ref["resource"], ref.get("subresource"))))))] += 1
    return made


def _events(audit_log: Path, holds: str) -> Iterator[Event]:
    """Those that succeeded, of the lines that hold a text."""
    with audit_log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if holds in line:
                event = json.loads(line)
                if event["responseStatus"]["code"] < 300:
                    yield event


def _span(event: Event) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(event["requestReceivedTimestamp"]), datetime.fromisoformat(event["stageTimestamp"])
