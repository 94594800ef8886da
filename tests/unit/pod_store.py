"""Pods as etcd has them, for whatever lists and watches them in a test."""

import copy

from virtflow.kube.resources import Object


class Store:
    """Pods of one namespace as etcd has them: every write has a revision, and old revisions can be compacted."""

    def __init__(self) -> None:
        self.revision = 10
        self.compacted = 0
        self.pods: dict[str, Object] = {}
        self.history: list[tuple[str, Object]] = []
        self.uids = 0

    def put(self, name: str, **more: object) -> Object:
        old = self.pods.get(name)
        if old is None:
            self.uids += 1
        uid = old["metadata"]["uid"] if old else f"uid-{self.uids}"
        return self._write("MODIFIED" if old else "ADDED", {"metadata": {"name": name, "uid": uid}, **more})

    def delete(self, name: str) -> None:
        if name in self.pods:
            self._write("DELETED", self.pods[name])

    def compact(self) -> None:
        self.compacted = self.revision

    def listed(self) -> Object:
        items = [{k: v for k, v in pod.items() if k not in ("apiVersion", "kind")} for pod in self.pods.values()]
        return copy.deepcopy({"metadata": {"resourceVersion": str(self.revision)}, "items": items})

    def after(self, revision: int) -> list[Object]:
        if revision < self.compacted:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            return [{"type": "ERROR", "object": status}]
        return [
            {"type": kind, "object": copy.deepcopy(pod)}
            for kind, pod in self.history
            if int(pod["metadata"]["resourceVersion"]) > revision
        ]

    def _write(self, kind: str, pod: Object) -> Object:
        self.revision += 1
        metadata = {**pod["metadata"], "namespace": "ns", "resourceVersion": str(self.revision)}
        pod = {**pod, "apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        self.history.append((kind, pod))
        if kind == "DELETED":
            del self.pods[metadata["name"]]
        else:
            self.pods[metadata["name"]] = pod
        return copy.deepcopy(pod)
