"""The sequence so far: of each virtual machine its arrows, of each autoscaler its decisions, and all writes.

From the logs themselves, as a step's evidence is, but by a reader of its own: the worker, who answers for the steps,
may be what does not work.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from virtflow.bundle.parts import Part, Scene
from virtflow.errors import VirtflowError
from virtflow.kube import NO_ANSWER, KubeError, Object, describe
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
    # Reading and matching in threads: on a busy cluster it takes seconds, for which all else would stand still.
    records, writes = await asyncio.to_thread(_read, part, scene)
    own = [each for each in writes if each.namespace.endswith(scene.failure.mark)]
    told = await asyncio.to_thread(list, _creates(part, scene, records, writes))
    autoscalers = await _autoscalers(part, scene, dict.fromkeys(write.namespace for write in own))
    told += await asyncio.to_thread(list, _scales(part, own, autoscalers))
    part.write("sequence.txt", "sequences", told)
    part.write("writes.txt", "writes", [_line_of(write) for write in own], keep_last=True)


def _in_time(items: Iterable[Item], what: str, part: Part, scene: Scene) -> Iterator[Item]:
    """Those there is time for: a thread is not cancelled."""
    for item in items:
        if time.monotonic() > scene.deadline:
            part.left_out.append(f"{what}: not all, there was no time for more")
            return
        yield item


def _read(part: Part, scene: Scene) -> tuple[list[AccessRecord], list[Write]]:
    """The gateway's records and the kube-apiserver's writes that concern the scenario, by arrival."""
    mark, endpoints = scene.failure.mark.encode(), scene.endpoints
    with _lines(endpoints.access_log, part, scene) as lines:
        concerned = (line for line in lines if mark in line)
        records = list(_parsed(concerned, ACCESS_RECORD_START, access_record_of))
    reviews = {each for record in records for each in review_ids(record.request_id, records)}
    with _lines(endpoints.audit_log, part, scene) as lines:
        concerned = (line for line in lines if mark in line or _id_of(line) in reviews)
        writes = [write for write in _parsed(concerned, EVENT_START, write_of) if write]
    return records, sorted(writes, key=lambda write: write.at)


@contextlib.contextmanager
def _lines(log: Path, part: Part, scene: Scene) -> Iterator[Iterator[bytes]]:
    with contextlib.closing(Tail.from_end(log, back=LOOK_BACK)) as tail:
        yield _in_time(iter(tail.next_line, None), log.name, part, scene)


def _parsed(lines: Iterable[bytes], start: bytes, parse: Callable[[bytes], Item]) -> Iterator[Item]:
    for line in lines:
        try:
            yield parse(line)
        except ValueError:
            for whole in whole_records(line, start):
                with contextlib.suppress(ValueError):
                    yield parse(whole)


def _id_of(line: bytes) -> str:
    found = AUDIT_ID.search(line, 0, ID_WITHIN)
    return found.group(1).decode() if found else ""


def _creates(part: Part, scene: Scene, records: Sequence[AccessRecord], writes: Sequence[Write]) -> Iterator[str]:
    creates = [(write, write.impersonated) for write in writes if write.impersonated and _is_create(write)]
    for create, account in _in_time(creates, "the machines' arrows", part, scene):
        namespace, _, user = account.removeprefix("system:serviceaccount:").rpartition(":")
        title = f"{create.namespace}/{create.name}, created by {user}: {create.code} (request {create.audit_id})\n"
        if create.code != 201:
            yield title + "\n"
            continue
        evidence = CreateEvidence(
            VirtualMachineRef(create.namespace, create.name, create.uid),
            create.audit_id,
            Tenant("", namespace, [user]),
        )
        own = [record for record in records if record.request_id == create.audit_id]
        ids = review_ids(create.audit_id, own)
        concerned = [write for write in writes if write.namespace == create.namespace or write.audit_id in ids]
        yield title + "".join(map(_arrow, observe_request_and_create(evidence, own, concerned))) + "\n"


def _is_create(write: Write) -> bool:
    return (write.verb, write.resource, write.subresource) == ("create", "virtualmachines", "")


async def _autoscalers(part: Part, scene: Scene, namespaces: Collection[str]) -> list[tuple[str, Object]]:
    """Each with its namespace. The kube-apiserver may be what does not answer: what was read must not wait for it."""
    try:
        async with asyncio.timeout(scene.deadline - time.monotonic()):
            return [(each, hpa) for each in namespaces for hpa in await scene.kube.list(HPAS, each)]
    except (KubeError, *NO_ANSWER) as error:
        part.left_out.append(f"the autoscalers' decisions, whose targets the kube-apiserver knows: {describe(error)}")
        return []


def _scales(part: Part, writes: Sequence[Write], autoscalers: Collection[tuple[str, Object]]) -> Iterator[str]:
    for namespace, each in autoscalers:
        own = [write for write in writes if write.namespace == namespace]
        name, target = each["metadata"]["name"], each["spec"]["scaleTargetRef"]["name"]
        try:
            decisions = observe_scale_decisions(own, ReplicaSetRef(namespace, target, name), each["spec"])
        except VirtflowError as error:
            part.left_out.append(str(error))
        else:
            yield f"{namespace}/{target}, scaled by {name}\n" + "".join(map(_decision, decisions)) + "\n"


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
