"""What a Role allows: RBAC's own rules said once more, for a cluster's answers to be held against.

A role holds in its own namespace. That is for the caller to know: nothing here has a namespace.
"""

from collections.abc import Iterable

from workflows.tenant_models import PolicyRule

__all__ = ["allows"]

ANY = "*"


def allows(role: Iterable[PolicyRule], group: str, resource: str, verb: str) -> bool:
    """Whether a rule allows the verb on the resource, a plural or `plural/subresource`, of the API group."""
    return any(
        _covers(rule.verbs, verb) and _covers(rule.api_groups, group) and _covers_resource(rule.resources, resource)
        for rule in role
    )


def _covers(named: Iterable[str], wanted: str) -> bool:
    return any(name in (ANY, wanted) for name in named)


def _covers_resource(named: Iterable[str], wanted: str) -> bool:
    # `pods` says nothing of its subresources, and `pods/*` is no wildcard: a whole resource has one, or all do.
    _, slash, subresource = wanted.partition("/")
    return _covers(named, wanted) or (bool(slash) and f"{ANY}/{subresource}" in named)
