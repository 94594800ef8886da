"""What became of a run, by the audit log, the cluster's API and the machine: none of which was asked to do anything.

The programs that were killed are not asked, nor what the workflows believe to have done.
"""

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

from virtflow.kube import KubeClient, Object, Resource
from virtflow.kube.resources import PODS, VMIS, VMS
from virtflow.sequence.audit import EVENT_START, Write, write_of
from virtflow.sequence.tail import Tail, whole_records

__all__ = ["left_in_cluster", "left_on_machine", "ports_of", "unlike_one_create"]

RUN_LABEL = "virtflow.io/run"
MACHINE = "test-vm"
"""The one virtual machine of each journey."""


def unlike_one_create(audit_log: Path, namespaces: Collection[str]) -> tuple[list[str], list[str]]:
    """Of what was created but once in each journey's namespace: what was created more often, or never; and notes.

    Once are a journey's virtual machine, the machine's instance, and the launcher pod of each instance.
    """
    created: Counter[tuple[str, str, str]] = Counter()
    uids: defaultdict[str, set[str]] = defaultdict(set)
    for write in _writes(audit_log):
        if write.namespace not in namespaces or write.subresource or write.code >= 300:
            continue
        if write.verb == "create":
            of_what = write.owner.uid if write.resource == PODS.plural and write.owner else write.name
            created[write.namespace, write.resource, of_what] += 1
        if write.resource == VMS.plural and write.name == MACHINE and write.uid:
            uids[write.namespace].add(write.uid)
    kinds = (VMS.plural, VMIS.plural, PODS.plural)
    problems = [
        f"{namespace}: {count} creates of {resource} {key}"
        for (namespace, resource, key), count in sorted(created.items())
        if count > 1 and resource in kinds
    ]
    notes = []
    for namespace in sorted(namespaces):
        if len(uids[namespace]) != 1:
            problems.append(f"{namespace}: {len(uids[namespace])} virtual machines {MACHINE} instead of one")
        elif not created[namespace, VMS.plural, MACHINE]:
            # Stored, but killed before the event was written: the retry found it there.
            notes.append(f"{namespace}: the kube-apiserver died between storing {MACHINE} and saying so")
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


async def left_in_cluster(kube: KubeClient, run_id: str, namespaces: Collection[str]) -> list[str]:
    """Objects of any kind that bear the run's label or are in one of its namespaces."""
    left = []
    for resource in await _stored(kube):
        for obj in await kube.list(resource):
            meta = obj["metadata"]
            is_own = meta.get("labels", {}).get(RUN_LABEL) == run_id
            if is_own or meta.get("namespace") in namespaces or meta["name"] in namespaces:
                left.append(f"{resource.kind} {'/'.join(filter(None, (meta.get('namespace'), meta['name'])))}")
    return sorted(set(left))


async def _stored(kube: KubeClient) -> list[Resource]:
    """Every kind of object that the kube-apiserver lists, by its own account."""
    groups: list[Object] = (await kube.request("GET", "/apis"))["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    found = []
    for group_version in versions:
        group, _, version = group_version.rpartition("/")
        # What metrics-server lists is computed from what there is.
        if group == "metrics.k8s.io":
            continue
        answer = await kube.request("GET", f"/apis/{group_version}" if group else f"/api/{version}")
        found += [
            Resource(group, version, each["name"], each["kind"], namespaced=each["namespaced"])
            for each in answer["resources"]
            if "list" in each["verbs"] and "/" not in each["name"]
        ]
    return found


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
