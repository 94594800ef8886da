"""A kube-apiserver in memory that virt-controller cannot tell from a slow one, and a line to it that may be cut."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

from clusters.kubevirt.api.mutate import mutate_new_instance
from clusters.kubevirt.controller.vmirs import loses_pod
from clusters.kubevirt.controller.workqueue import FAILED_TEST
from clusters.kubevirt.objects import controller_of, format_time, is_deleting, is_final, now
from tests.unit.patching import apply_operation, merge
from tests.unit.virt_controller_support import NAMESPACE, NODE_NAMES, TIME, deleting, make_node
from virtflow.kube import KubeClient, Object, Response

NAMESPACES = {"nodes": "", "leases": "kubevirt"}
"""Of what is not a tenant's."""


class ApiServer(KubeClient):
    """A kube-apiserver in memory, at the other end of a KubeClient.

    It takes its time, drawn from a seeded generator, before and after each write and before each event of a
    watch: so answers overtake events and events answers, differently for each seed. It also plays the
    scheduler, kubelet and garbage collector of its cluster.
    """

    def __init__(self, seed: int = 0, clock: Callable[[], datetime] = now) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.writes: Counter[str] = Counter()
        self.pod_quota: int | None = None
        self.instance_quota: int | None = None
        self.pods_to_fail = 0
        self.most_active: Counter[str] = Counter()
        for name in NODE_NAMES:
            self.objects["nodes", "", name] = make_node(name, clock())
        self._random = random.Random(seed)
        self._clock = clock
        self._version = 0
        self._events: list[tuple[int, str, str, Object]] = []
        self._changed = asyncio.Condition()

    def all(self, plural: str) -> list[Object]:
        return [obj for key, obj in self.objects.items() if key[0] == plural]

    def find(self, plural: str, name: str) -> Object | None:
        return self.objects.get((plural, NAMESPACES.get(plural, NAMESPACE), name))

    async def add(self, plural: str, obj: Object) -> None:
        await self._store(plural, deepcopy(obj), "ADDED")

    async def edit(self, plural: str, name: str, spec: Object) -> None:
        if obj := self.find(plural, name):
            new = deepcopy(obj)
            new["spec"] |= spec
            new["metadata"]["generation"] += 1
            await self._store(plural, new, "MODIFIED")

    async def relabel(self, plural: str, name: str, labels: dict[str, str], *, keep_owners: bool = True) -> None:
        if obj := self.find(plural, name):
            new = deepcopy(obj)
            new["metadata"]["labels"] = labels
            if not keep_owners:
                new["metadata"]["ownerReferences"] = []
            await self._store(plural, new, "MODIFIED")

    async def remove(self, plural: str, name: str) -> None:
        if obj := self.find(plural, name):
            await self._delete(plural, obj)

    async def force_away(self, plural: str, name: str) -> None:
        """Take its finalizers from an object, and delete it."""
        if (obj := self.find(plural, name)) is not None:
            await self._forget(plural, await self._store(plural, with_finalizers(deepcopy(obj), []), "MODIFIED"))

    async def remove_only(self, plural: str, name: str) -> None:
        """An orphaning delete."""
        await self.let_go(plural, name)
        if (obj := self.find(plural, name)) is not None:
            await self._store(plural, with_finalizers(deepcopy(obj), []), "MODIFIED")

    async def let_go(self, plural: str, name: str) -> None:
        """The part of it before the object is gone: it says that it goes, and lets go what it owns."""
        if (obj := self.find(plural, name)) is None:
            return
        await self._store(plural, with_finalizers(deleting(deepcopy(obj)), ["orphan"]), "MODIFIED")
        for (of, _, _), each in list(self.objects.items()):
            if (owner := controller_of(each)) and owner["uid"] == obj["metadata"]["uid"]:
                new = deepcopy(each)
                new["metadata"]["ownerReferences"].remove(owner)
                await self._store(of, new, "MODIFIED")

    async def until(self, holds: Any, timeout: timedelta = timedelta(seconds=20)) -> None:
        async with asyncio.timeout(timeout.total_seconds()), self._changed:
            await self._changed.wait_for(holds)

    async def tell(self, plural: str, name: str, status: Object) -> None:
        """Change fields of an object's status."""
        if obj := self.find(plural, name):
            await self._store(plural, {**deepcopy(obj), "status": obj.get("status", {}) | status}, "MODIFIED")

    async def fail_node(self, name: str) -> None:
        """Make a node NotReady, and evict its pods as the taint that follows does."""
        await self.tell("nodes", name, {"conditions": [{"type": "Ready", "status": "False"}]})
        for pod in self.all("pods"):
            if pod["spec"].get("nodeName") == name:
                await self._delete("pods", pod)

    async def heal_node(self, name: str) -> None:
        await self.tell("nodes", name, {"conditions": [{"type": "Ready", "status": "True"}]})

    async def run_nodes(self) -> None:
        """Bind pods, make them Running or fail, and see them off, for ever."""
        seen = 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._version > seen)  # noqa: B023
            seen = self._version
            for pod in self.all("pods"):
                await self._dawdle(3)
                if self.find("pods", pod["metadata"]["name"]) is pod:
                    await self._advance_pod(pod)

    async def _advance_pod(self, pod: Object) -> None:
        new = deepcopy(pod)
        if is_deleting(pod):
            await self._forget("pods", pod)
        elif "nodeName" not in pod["spec"]:
            if node := next(filter(takes_pods, self.all("nodes")), None):
                new["spec"]["nodeName"] = node["metadata"]["name"]
                await self._store("pods", new, "MODIFIED")
        elif pod["status"]["phase"] == "Pending" and self.pods_to_fail:
            self.pods_to_fail -= 1
            new["status"] |= {"phase": "Failed"}
            await self._store("pods", new, "MODIFIED")
        elif pod["status"]["phase"] == "Pending":
            new["status"] |= {"phase": "Running", "containerStatuses": [{"ready": True}]}
            new["status"].setdefault("conditions", []).append({"type": "Ready", "status": "True"})
            await self._store("pods", new, "MODIFIED")

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = timedelta(seconds=30),
    ) -> Response:
        await self._dawdle(4)
        plural, namespace, name, _ = split(path)
        if method == "GET" and name is None:
            answer: Response = Response(
                200,
                {"metadata": {"resourceVersion": str(self._version)}, "items": deepcopy(self.all(plural))},
            )
        else:
            if namespace == NAMESPACE and method != "GET":
                self.writes[f"{method} {plural}"] += 1
            answer = await self._write(method, plural, (plural, namespace or "", name or ""), deepcopy(body))
        await self._dawdle(4)
        return Response(answer.code, deepcopy(answer.body))

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        plural, version = split(path)[0], int(query["resourceVersion"])
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._version > version)  # noqa: B023
            for number, of, kind, obj in self._events[version:]:
                version = number
                ended = kind == "DELETED" or obj.get("status", {}).get("phase") in ("Succeeded", "Failed")
                if of == plural and (ended or "fieldSelector" not in query):
                    await self._dawdle(8)
                    yield {"type": kind, "object": deepcopy(obj)}

    async def _write(self, method: str, plural: str, key: tuple[str, str, str], body: Any) -> Response:
        if method == "POST":
            return await self._create(plural, json.loads(body) if isinstance(body, bytes) else body)
        old = self.objects.get(key)
        if old is None:
            return refusal(404, f'{plural} "{key[2]}" not found')
        match method:
            case "DELETE":
                return await self._end(plural, old, body)
            case "PUT":
                return await self._replace(plural, old, body)
            case "PATCH":
                return await self._patch(plural, old, body)
            case _:
                return Response(200, old)

    async def _end(self, plural: str, old: Object, options: Object) -> Response:
        if options["preconditions"]["uid"] != old["metadata"]["uid"]:
            return refusal(409, "the UID in the precondition is not this object's")
        return Response(200, await self._delete(plural, old))

    async def _replace(self, plural: str, old: Object, body: Object) -> Response:
        if body["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            return refusal(409, "the object has been modified")
        return Response(200, await self._store(plural, body, "MODIFIED"))

    async def _patch(self, plural: str, old: Object, body: Any) -> Response:
        new = deepcopy(old)
        if isinstance(body, list):
            if not all(apply_operation(new, operation) for operation in body):
                return refusal(422, FAILED_TEST)
        else:
            merge(new, body)
        return Response(200, await self._collect(plural, await self._store(plural, new, "MODIFIED")))

    async def _create(self, plural: str, body: Object) -> Response:
        meta = body["metadata"]
        meta.setdefault("name", f"{meta.get('generateName')}{self._version:05}")
        if (plural, meta["namespace"], meta["name"]) in self.objects:
            return refusal(409, f'{plural} "{meta["name"]}" already exists')
        if plural == "pods" and self.pod_quota is not None and len(self.all("pods")) >= self.pod_quota:
            return refusal(403, f'pods "{meta["name"]}" is forbidden: exceeded quota: tenant-quota')
        if plural == "virtualmachineinstances":
            if self.instance_quota is not None and len(self.all(plural)) >= self.instance_quota:
                return refusal(403, f'{plural} "{meta["name"]}" is forbidden: exceeded quota: tenant-quota')
            body = mutate_new_instance(body)
        if plural == "pods":
            body["status"] = {"phase": "Pending", "qosClass": "Burstable"}
        body["metadata"] |= {"uid": f"uid-{self._version}", "generation": 1, "creationTimestamp": TIME}
        return Response(201, await self._collect(plural, await self._store(plural, body, "ADDED")))

    async def _collect(self, plural: str, obj: Object) -> Object:
        """Whatever belongs to an owner that is gone already goes, too."""
        owner = controller_of(obj)
        if owner and not any(each["metadata"]["uid"] == owner["uid"] for each in self.objects.values()):
            await self._delete(plural, obj)
        return obj

    async def _delete(self, plural: str, obj: Object) -> Object:
        lingers = obj["metadata"].get("finalizers") or "nodeName" in obj["spec" if plural == "pods" else "metadata"]
        if not lingers:
            await self._forget(plural, obj)
            return {"kind": "Status", "status": "Success"}
        if is_deleting(obj):
            return obj
        return await self._store(plural, deleting(deepcopy(obj), format_time(self._clock())), "MODIFIED")

    async def _store(self, plural: str, obj: Object, kind: str) -> Object:
        meta = obj["metadata"]
        if is_deleting(obj) and not meta.get("finalizers") and plural != "pods":
            await self._forget(plural, obj)
            return obj
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        if meta.get("ownerReferences") == []:
            del meta["ownerReferences"]
        self.objects[plural, meta.get("namespace", ""), meta["name"]] = obj
        await self._announce(plural, kind, obj)
        return obj

    async def _forget(self, plural: str, obj: Object) -> None:
        meta = obj["metadata"]
        if self.objects.pop((plural, meta.get("namespace", ""), meta["name"]), None) is None:
            return
        self._version += 1
        last = {**obj, "metadata": {**meta, "resourceVersion": str(self._version)}}
        await self._announce(plural, "DELETED", last)
        for (of, _, _), each in list(self.objects.items()):
            if (owner := controller_of(each)) and owner["uid"] == meta["uid"]:
                await self._delete(of, each)

    async def _announce(self, plural: str, kind: str, obj: Object) -> None:
        self._events.append((self._version, plural, kind, obj))
        active: Counter[str] = Counter()
        for vmi in self.all("virtualmachineinstances"):
            owner = controller_of(vmi)
            # As KubeVirt counts: one whose pod goes is replaced at once.
            if owner and not is_deleting(vmi) and not is_final(vmi) and not loses_pod(vmi):
                active[owner["uid"]] += 1
        self.most_active |= active
        async with self._changed:
            self._changed.notify_all()

    async def _dawdle(self, most: int) -> None:
        for _ in range(self._random.randrange(most)):
            await asyncio.sleep(0)


class Line(KubeClient):
    """One process's connection to the server, which may be cut, and may lose what it carries.

    `passed` is called before each request has arrived and after it was answered: at both moments a process can be
    killed. Of writes, `loses` says whether the answer is to get lost.
    """

    def __init__(
        self, server: ApiServer, passed: Callable[[], None] = lambda: None, loses: Callable[[], bool] = lambda: False
    ) -> None:
        self.is_cut = False
        self._server = server
        self._passed = passed
        self._loses = loses

    async def send(self, method: str, path: str, **kwargs: Any) -> Response:
        await self._pass()
        answer = await self._server.send(method, path, **kwargs)
        await self._pass()
        if method != "GET" and self._loses():
            raise ConnectionResetError("the answer is lost")
        return answer

    async def _pass(self) -> None:
        if not self.is_cut:
            self._passed()
            # Whoever is killed by that goes no further than here.
            await asyncio.sleep(0)
        if self.is_cut:
            raise ConnectionResetError("the line is cut")

    async def stream(self, path: str, query: Mapping[str, str], timeout: timedelta) -> AsyncGenerator[Object, None]:
        async for event in self._server.stream(path, query, timeout):
            yield event


def with_finalizers(obj: Object, finalizers: list[str]) -> Object:
    obj["metadata"]["finalizers"] = finalizers
    return obj


def split(path: str) -> tuple[str, str | None, str | None, str | None]:
    """Plural, namespace, name and subresource of a URL path."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = None
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource = (*parts, None, None)[:3]
    return str(plural), namespace, name, subresource


def takes_pods(node: Object) -> bool:
    ready = node["status"]["conditions"][0]["status"] == "True"
    return ready and bool(node["metadata"]["labels"]["kubevirt.io/schedulable"] == "true")


def refusal(code: int, message: str) -> Response:
    return Response(code, {"kind": "Status", "code": code, "message": message})
