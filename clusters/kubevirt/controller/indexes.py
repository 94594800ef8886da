"""Objects of an informer found by something other than their name, without looking at all of them."""

from collections import defaultdict
from collections.abc import Callable, Hashable

from clusters.kubevirt.objects import controller_of
from virtflow.kube import Informer, Object

__all__ = ["Index", "by_controller", "by_namespace", "orphans_by_namespace"]

Key = Callable[[Object], Hashable | None]
"""What to find an object by; None if it is not to be found."""


class Index:
    """Follows its informer. Whoever listens to that one, too, must do so later, to find in here what it heard of."""

    def __init__(self, informer: Informer, key: Key) -> None:
        self._key = key
        self._found: defaultdict[Hashable, dict[str, Object]] = defaultdict(dict)
        informer.listen(self._changed)

    def of(self, key: Hashable) -> list[Object]:
        return list(self._found.get(key, {}).values())

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (key := self._key(old)) is not None:
            found = self._found[key]
            found.pop(old["metadata"]["uid"], None)
            if not found:
                del self._found[key]
        if new is not None and (key := self._key(new)) is not None:
            self._found[key][new["metadata"]["uid"]] = new


def by_controller(obj: Object) -> Hashable | None:
    """The uid of the owner that manages the object."""
    owner = controller_of(obj)
    return None if owner is None else str(owner["uid"])


def by_namespace(obj: Object) -> Hashable | None:
    return str(obj["metadata"]["namespace"])


def orphans_by_namespace(obj: Object) -> Hashable | None:
    """Only what nobody manages: in most namespaces nothing."""
    return by_namespace(obj) if controller_of(obj) is None else None
