"""Patches as a kube-apiserver applies them, as far as the stand-in's processes use them."""

from virtflow.kube import Object

__all__ = ["apply_operation", "merge"]


def merge(obj: Object, patch: Object) -> None:
    """A strategic merge patch: objects by their fields, conditions by their types."""
    for field, value in patch.items():
        if field == "conditions":
            kinds = {each["type"] for each in value}
            obj[field] = [each for each in obj.get(field, []) if each["type"] not in kinds] + value
        elif isinstance(value, dict):
            merge(obj.setdefault(field, {}), value)
        else:
            obj[field] = value


def apply_operation(obj: Object, operation: Object) -> bool:
    """One operation of a JSON patch, on the object itself; False if it was a test that fails."""
    *parents, last = (part.replace("~1", "/") for part in operation["path"].strip("/").split("/"))
    for part in parents:
        obj = obj[part]
    if operation["op"] == "test":
        return bool(obj.get(last) == operation["value"])
    if operation["op"] == "remove":
        del obj[last]
    else:
        obj[last] = operation["value"]
    return True
