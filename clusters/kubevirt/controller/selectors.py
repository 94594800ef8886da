"""Label selectors: whom one selects, and how it is written."""

from virtflow.kube import Object

__all__ = ["format_selector", "selects"]


def selects(selector: Object, obj: Object) -> bool:
    """Whether the object's labels are as a LabelSelector wants them; an empty one wants nothing of them.

    One with an operator that does not exist selects nobody.
    """
    labels: dict[str, str] = obj.get("metadata", {}).get("labels") or {}
    wanted: dict[str, str] = selector.get("matchLabels") or {}
    expressions: list[Object] = selector.get("matchExpressions") or []
    return wanted.items() <= labels.items() and all(holds(expression, labels) for expression in expressions)


def holds(expression: Object, labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def format_selector(selector: Object) -> str:
    """A label selector in the form that list requests and the scale subresource speak."""
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or []:
        key, values = each["key"], ",".join(sorted(each.get("values") or []))
        match each["operator"]:
            case "In":
                parts.append((key, f"{key} in ({values})"))
            case "NotIn":
                parts.append((key, f"{key} notin ({values})"))
            case "Exists":
                parts.append((key, key))
            case "DoesNotExist":
                parts.append((key, f"!{key}"))
    return ",".join(text for _, text in sorted(parts))
