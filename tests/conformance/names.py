"""Names that mean the same in every run: of what is drawn, counted or dated, only what it stands for is left."""

import re
from collections.abc import Iterable

from virtflow.kube import Object

__all__ = ["Names"]

UID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")
DRAWN = "[a-z0-9]{5}"
LAUNCHER = re.compile(rf"virt-launcher-([a-z0-9.-]+)-{DRAWN}(?![a-z0-9-])")
NODES_COUNTED = re.compile(r"\b\d+(?=/\d+ nodes)|(?<=/)\d+(?= nodes)|\b\d+(?= (?:Insufficient|Preemption|node\(s\)))")
SIMILAR = "(combined from similar events): "
"""What client-go puts before an event's message when there have been many like it."""


class Names:
    """Of one namespace. Learns uids as it meets objects, so that a reference to the wrong one is seen."""

    def __init__(self, namespace: str, nodes: Iterable[str]) -> None:
        self._namespace = re.compile(rf"(?<![\w-]){re.escape(namespace)}(?![\w-])")
        names = sorted(map(re.escape, nodes), key=len, reverse=True)
        self._nodes = re.compile(rf"(?<![\w.-])(?:{'|'.join(names)})(?![\w-])") if names else None
        self._sets: set[str] = set()
        self._uids: dict[str, str] = {}

    def learn(self, kind: str, name: str, uid: str) -> None:
        if kind == "VirtualMachineInstanceReplicaSet":
            self._sets.add(name)
        if uid:
            self._uids[uid] = f"<uid of {self.alias(kind, name)}>"

    def learn_object(self, obj: Object) -> None:
        self.learn(obj["kind"], obj["metadata"]["name"], obj["metadata"]["uid"])

    def alias(self, kind: str, name: str) -> str:
        """'Pod virt-launcher-test-vm-*'."""
        return f"{kind} {self.mask(name)}"

    def mask(self, text: str) -> str:
        text = UID.sub(lambda found: self._uids.get(found[0], "<uid>"), text.removeprefix(SIMILAR))
        text = LAUNCHER.sub(r"virt-launcher-\1-*", text)
        for name in self._sets:
            text = re.sub(rf"(?<![a-z0-9]){re.escape(name)}{DRAWN}(?![a-z0-9])", f"{name}*", text)
        if self._nodes:
            text = self._nodes.sub("<node>", text)
        text = self._namespace.sub("<namespace>", text)
        return NODES_COUNTED.sub("N", text)
