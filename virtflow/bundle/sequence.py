"""The sequence so far: of each virtual machine its arrows, of each autoscaler its decisions, and all writes.

From the logs themselves, as a step's evidence is, but by a reader of its own: the worker, who answers for the steps,
may be what does not work.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from virtflow.bundle.parts import Part, Scene
from virtflow.kube import NO_ANSWER, KubeError
from virtflow.kube.resources import HPAS
from virtflow.sequence.audit import (
    ACCESS_RECORD_START,
    EVENT_START,
    AccessRecord,
    Write,
    access_record_of,
    write_of,
)
from virtflow.sequence.create import observe_request_and_create, review_ids
from virtflow.sequence.scale import observe_scale_decisions
from virtflow.sequence.tail import Tail, whole_records
from workflows.models import CreateEvidence, ObservedArrow, ReplicaSetRef, ScaleDecision, VirtualMachineRef
from workflows.tenant_models import Tenant

__all__ = ["gather_sequence"]

LOOK_BACK = 256 << 20
"""Bytes of each log: some minutes of a busy cluster."""
AUDIT_ID = re.compile(rb'"auditID":"([^"]+)"')
ID_WITHIN = 200
"""Bytes at an event's beginning in which its id is."""
MILLISECOND = timedelta(milliseconds=1)

Item = TypeVar("Item")


async def gather_sequence(part: Part, scene: Scene) -> None:
    """`sequence.txt` has the arrows beside their proof, `writes.txt` all writes in the scenario's namespaces."""
    records, writes = await asyncio.to_thread(_read, scene)
    told = [*_creates(records, writes), *await _scales(part, scene, writes)]
    part.write("sequence.txt", "sequences", told)
    own = [each for each in writes if each.namespace.endswith(scene.failure.mark)]
    part.write("writes.txt", "writes", [_line_of(write) for write in own], keep_last=True)


def _read(scene: Scene) -> tuple[list[AccessRecord], list[Write]]:
    """The gateway's records and the kube-apiserver's writes that concern the scenario, by arrival."""
    mark, endpoints = scene.failure.mark.encode(), scene.endpoints
    records = list(
        _parsed(
            endpoints.access_log,
            ACCESS_RECORD_START,
            access_record_of,
            lambda line: mark in line,
            scene.deadline,
        )
    )
    reviews = {each for record in records for each in review_ids(record.request_id, records)}
    writes = _parsed(
        endpoints.audit_log,
        EVENT_START,
        write_of,
        lambda line: mark in line or _id_of(line) in reviews,
        scene.deadline,
    )
    return records, sorted((write for write in writes if write), key=lambda write: write.at)


def _parsed(
    log: Path,
    start: bytes,
    parse: Callable[[bytes], Item],
    concerns: Callable[[bytes], bool],
    deadline: float,
) -> Iterator[Item]:
    with contextlib.closing(Tail.from_end(log, back=LOOK_BACK)) as tail:
        for line in iter(tail.next_line, None):
            # A thread is not cancelled.
            if time.monotonic() > deadline:
                return
            if not concerns(line):
                continue
            try:
                yield parse(line)
            except ValueError:
                for whole in whole_records(line, start):
                    with contextlib.suppress(ValueError):
                        yield parse(whole)


def _id_of(line: bytes) -> str:
    found = AUDIT_ID.search(line, 0, ID_WITHIN)
    return found.group(1).decode() if found else ""


def _creates(records: Sequence[AccessRecord], writes: Sequence[Write]) -> Iterator[str]:
    for create in writes:
        is_create = (create.verb, create.resource, create.subresource) == ("create", "virtualmachines", "")
        if not is_create or not create.impersonated:
            continue
        user = create.impersonated.rpartition(":")[2]
        title = f"{create.namespace}/{create.name}, created by {user}: {create.code} (request {create.audit_id})\n"
        if create.code != 201:
            yield title + "\n"
            continue
        evidence = CreateEvidence(
            VirtualMachineRef(create.namespace, create.name, create.uid),
            create.audit_id,
            Tenant("", create.impersonated.split(":")[2], [user]),
        )
        own = [record for record in records if record.request_id == create.audit_id]
        ids = review_ids(create.audit_id, own)
        concerned = [write for write in writes if write.namespace or write.audit_id in ids]
        yield title + "".join(map(_arrow, observe_request_and_create(evidence, own, concerned))) + "\n"


async def _scales(part: Part, scene: Scene, writes: Sequence[Write]) -> list[str]:
    told: list[str] = []
    for namespace in _namespaces_of(writes):
        if not namespace.endswith(scene.failure.mark):
            continue
        try:
            autoscalers = await scene.kube.list(HPAS, namespace)
        except (KubeError, *NO_ANSWER) as error:
            part.left_out.append(f"the autoscalers' decisions, whose targets the kube-apiserver knows: {error}")
            return told
        own = [write for write in writes if write.namespace == namespace]
        for each in autoscalers:
            name, target = each["metadata"]["name"], each["spec"]["scaleTargetRef"]["name"]
            decisions = observe_scale_decisions(own, ReplicaSetRef(namespace, target, name), each["spec"])
            told.append(f"{namespace}/{target}, scaled by {name}\n" + "".join(map(_decision, decisions)) + "\n")
    return told


def _namespaces_of(writes: Sequence[Write]) -> Collection[str]:
    return dict.fromkeys(write.namespace for write in writes if write.namespace)


def _arrow(arrow: ObservedArrow) -> str:
    after = f"{arrow.after / MILLISECOND:>6.0f} ms" if arrow.after is not None else "  missing"
    return f"  {after}  {arrow.number:>2} {arrow.title}, by {arrow.actor.rpartition(':')[2]}\n"


def _decision(decision: ScaleDecision) -> str:
    followed = "" if decision.followed else ", not followed by virt-controller"
    return (
        f"  {decision.at:%H:%M:%S} {decision.before} → {decision.after} at {decision.utilization} % of "
        f"{decision.target} %{followed}\n"
    )


def _line_of(write: Write) -> str:
    resource = "/".join(filter(None, (write.resource, write.subresource)))
    user = write.impersonated or write.user
    return f"{write.at:%H:%M:%S.%f} {write.code} {user} {write.verb} {resource} {write.namespace}/{write.name}\n"
