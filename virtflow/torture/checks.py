"""What became of a run, by the audit log, the cluster's API and the machine: none of which was asked to do anything.

The programs that were killed are not asked, nor what the workflows believe to have done.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path

import psutil

from virtflow.kube import NO_ANSWER, KubeClient, KubeError, describe
from virtflow.kube.inventory import Inventory, take_inventory
from virtflow.kube.resources import PODS, VMIS, VMS
from virtflow.sequence.audit import EVENT_START, Write, write_of
from virtflow.sequence.tail import Tail, whole_records
from workflows.labels import RUN

__all__ = ["left_in_cluster", "left_on_machine", "ports_of", "unlike_one_create"]

ONCE = (VMS.plural, VMIS.plural, PODS.plural)
ANSWERS_WITHIN = timedelta(seconds=60)
"""The kube-apiserver, and whoever serves an API behind it: the last kill may have been a moment ago."""
LOOK_EVERY = timedelta(seconds=1)


def unlike_one_create(audit_log: Path, namespaces: Collection[str]) -> tuple[list[str], list[str]]:
    """What was created more often than once, or never, in a log of a cluster that had nothing else to do; and notes.

    Once are a virtual machine, its instance, and the launcher pod of each instance. Each of these namespaces, the
    journeys', must have had a machine.
    """
    created: Counter[tuple[str, str, str]] = Counter()
    uids: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for write in _writes(audit_log):
        if write.subresource or write.code >= 300:
            continue
        if write.verb == "create" and write.resource in ONCE:
            of_what = write.owner.uid if write.resource == PODS.plural and write.owner else write.name
            created[write.resource, write.namespace, of_what] += 1
        if write.resource == VMS.plural and write.uid:
            uids[write.namespace, write.name].add(write.uid)
    problems = [f"{count} creates of {'/'.join(key)}" for key, count in sorted(created.items()) if count > 1]
    problems += [
        f"{len(each)} virtual machines called {'/'.join(key)}" for key, each in uids.items() if len(each) > 1
    ]
    without = set(namespaces) - {namespace for namespace, _ in uids}
    problems += [f"no virtual machine in {namespace}" for namespace in sorted(without)]
    # Stored, but killed before the event was written: the retry found it there.
    unlogged = [key for key in uids if not created[VMS.plural, *key]]
    notes = [f"the kube-apiserver died between storing {'/'.join(key)} and saying so" for key in unlogged]
    return problems, notes


def _writes(audit_log: Path) -> Iterator[Write]:
    """Of a log whose writer was killed in the middle of lines."""
    tail = Tail(audit_log)
    with contextlib.closing(tail):
        while (line := tail.next_line()) is not None:
            try:
                write = write_of(line)
            except ValueError:
                yield from filter(None, map(write_of, whole_records(line, EVENT_START)))
            else:
                if write:
                    yield write


async def left_in_cluster(kube: KubeClient, namespaces: Collection[str]) -> list[str]:
    """Objects of any kind that bear a run's label or are in one of these namespaces; and kinds nobody answers for."""
    deadline = time.monotonic() + ANSWERS_WITHIN.total_seconds()
    # The API tells nobody when it is whole again.
    while (inventory := await _inventory(kube)).unseen and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_EVERY.total_seconds())
    left = [
        str(found)
        for found in inventory.objects
        if RUN in found.labels or {found.namespace, found.name} & set(namespaces)
    ]
    return [*left, *(f"nobody knows whether there are {kind}" for kind in inventory.unseen)]


async def _inventory(kube: KubeClient) -> Inventory:
    try:
        return await take_inventory(kube)
    except (KubeError, *NO_ANSWER) as error:
        return Inventory(unseen=[f"objects of any kind ({describe(error)})"])


def ports_of(folder: Path) -> list[int]:
    """Those of a cluster's programs, as long as its folder is there."""
    ports: dict[str, int] = json.loads((folder / "ports.json").read_text())
    return list(ports.values())


def left_on_machine(folder: Path, ports: Collection[int]) -> list[str]:
    """Of a cluster that was taken down: its folder, processes that know of it, and whoever listens on its ports."""
    left = [f"the folder {folder}"] if folder.exists() else []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            said = [*process.cmdline(), *process.environ().values()]
            if process.status() != psutil.STATUS_ZOMBIE and any(_is_in(folder, word) for word in said):
                left.append(f"process {process.pid}: {' '.join(process.cmdline())}")
    sockets = (each for each in psutil.net_connections("inet") if each.status == psutil.CONN_LISTEN)
    listening = {each.laddr.port for each in sockets if each.laddr}
    return left + [f"somebody listens on port {port}" for port in sorted(listening & set(ports))]


def _is_in(folder: Path, word: str) -> bool:
    """Whether a word of a command line or a variable is the folder, or something in it."""
    return word.rpartition("=")[2] == str(folder) or f"{folder}/" in word
