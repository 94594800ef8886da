"""A kube-apiserver that knows some kinds, deletes, and keeps what a finalizer holds: what cleanup sees of one."""

from collections import Counter
from collections.abc import Callable

from aiohttp import web

from virtflow.kube import Object

__all__ = ["HeldCluster"]

CREATED = "2020-11-23T12:00:00Z"
ALL = ["create", "delete", "get", "list"]


def kind(plural: str, name: str, verbs: list[str], scope: str = "Namespaced") -> Object:
    return {"resource": plural, "responseKind": {"kind": name}, "scope": scope, "verbs": verbs}


CORE = [
    kind("namespaces", "Namespace", ALL, "Cluster"),
    kind("secrets", "Secret", ALL),
    kind("events", "Event", ALL),
]
GROUPS: Object = {
    "example.com": [
        ("v2", [kind("widgets", "Widget", ALL, "Cluster"), kind("parts", "Part", ALL)]),
        ("v1", [kind("widgets", "Widget", ALL, "Cluster"), kind("relics", "Relic", ALL, "Cluster")]),
    ],
    "events.k8s.io": [("v1", [kind("events", "Event", ALL)])],
    "authorization.k8s.io": [("v1", [kind("reviews", "Review", ["create"], "Cluster")])],
    "subresources.example.com": [
        ("v1", [{"resource": "widgets", "responseKind": None, "scope": "Namespaced", "verbs": None}])
    ],
    "metrics.k8s.io": [("v1beta1", [kind("secrets", "SecretMetrics", ["get", "list"])])],
}


class HeldCluster:
    """Objects by their paths. A namespace that is deleted goes once it is empty of what finalizers hold."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.silent: set[str] = set()
        """Groups whose server does not answer, so that nobody knows their kinds."""
        self.fails: dict[str, int] = {}
        """Code by path, of lists and deletions."""
        self.asked: Counter[str] = Counter()
        self.deleted: list[str] = []
        self.on_list: Callable[[str], None] = lambda _: None
        """Called with the path of each list before it is made."""

    def add(self, collection: str, name: str, run: str = "r1", **metadata: object) -> str:
        """The path. `collection` is the path of its kind, in its namespace if it has one."""
        path = f"{collection}/{name}"
        parts = collection.split("/")
        namespace = {"namespace": parts[parts.index("namespaces") + 1]} if "namespaces" in parts[:-1] else {}
        labels = {"virtflow.io/run": run, "virtflow.io/scenario": f"of-{run}"} if run else {}
        meta = {"name": name, "uid": path, "creationTimestamp": CREATED, "labels": labels}
        self.objects[path] = {"metadata": meta | namespace | metadata}
        return path

    def release(self, path: str) -> None:
        """As its controller does once it is ready."""
        self.objects[path]["metadata"]["finalizers"] = []
        self._settle()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.asked[f"{request.method} {path}"] += 1
        if path in ("/api", "/apis"):
            assert "APIGroupDiscoveryList" in request.headers["Accept"]
            return web.json_response({"items": [core()] if path == "/api" else self._groups()})
        if path in self.fails:
            code = self.fails[path]
            return web.json_response({"code": code, "reason": "Failed", "message": "it fails"}, status=code)
        if request.method == "DELETE":
            body = await request.json()
            return self._delete(path, body["preconditions"]["uid"])
        if path in self.objects:
            return web.json_response(self.objects[path])
        assert "PartialObjectMetadataList" in request.headers["Accept"], "an object's content was asked for"
        self.on_list(path)
        return web.json_response({"items": self._listed(path, request.query.get("labelSelector", "")) or None})

    def _groups(self) -> list[Object]:
        return [
            group(name, [(version, []) for version, _ in versions], "Stale")
            if name in self.silent
            else group(name, versions)
            for name, versions in GROUPS.items()
        ]

    def _listed(self, collection: str, selector: str) -> list[Object]:
        prefix, _, plural = collection.rpartition("/")
        # events.k8s.io has the same objects as the core's events.
        prefix = prefix.replace("/apis/events.k8s.io/v1", "/api/v1")
        return [
            obj
            for path, obj in self.objects.items()
            if path.startswith(f"{prefix}/") and path.split("/")[-2] == plural and selected(obj, selector)
        ]

    def _delete(self, path: str, uid: str) -> web.Response:
        if path not in self.objects:
            return web.json_response({"code": 404}, status=404)
        if self.objects[path]["metadata"]["uid"] != uid:
            return web.json_response({"code": 409, "message": "another uid"}, status=409)
        self.deleted.append(path)
        self.objects[path]["metadata"]["deletionTimestamp"] = CREATED
        self._settle()
        return web.json_response({"kind": "Status"})

    def _settle(self) -> None:
        """Namespaces empty themselves, and what is deleted goes unless something holds it."""
        for path in list(self.objects):
            inside = [other for other in self.objects if other.startswith(f"{path}/")]
            if "deletionTimestamp" in self.objects[path]["metadata"]:
                for each in inside:
                    self.objects[each]["metadata"]["deletionTimestamp"] = CREATED
        for path in sorted(self.objects, key=len, reverse=True):
            meta = self.objects[path]["metadata"]
            is_empty = not any(other.startswith(f"{path}/") for other in self.objects)
            if "deletionTimestamp" in meta and not meta.get("finalizers") and is_empty:
                del self.objects[path]


def core() -> Object:
    return {"metadata": {}, "versions": [{"version": "v1", "resources": CORE}]}


def group(name: str, versions: list[tuple[str, list[Object]]], freshness: str = "Current") -> Object:
    told = [{"version": version, "resources": resources, "freshness": freshness} for version, resources in versions]
    return {"metadata": {"name": name}, "versions": told}


def selected(obj: Object, selector: str) -> bool:
    """By `key`, `key=value` or `key in (a,b)`."""
    labels = obj["metadata"]["labels"]
    key, _, values = selector.partition(" in ")
    if values:
        return labels.get(key) in values.strip("()").split(",")
    key, equals, value = selector.partition("=")
    return not key or (key in labels and (not equals or labels[key] == value))
