"""What a role allows, against a formulation of its own: the set of all that its rules spell out."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtflow.access.role import allows
from workflows.tenant_models import OPERATOR, PolicyRule

GROUPS = ("", "kubevirt.io", "subresources.kubevirt.io")
PLURALS = ("pods", "secrets", "virtualmachines")
SUBRESOURCES = ("", "start", "stop")
RESOURCES = [plural + (f"/{sub}" if sub else "") for plural, sub in product(PLURALS, SUBRESOURCES)]
VERBS = ("get", "list", "update")

rules = st.builds(
    PolicyRule,
    st.lists(st.sampled_from([*GROUPS, "*", "apps"]), max_size=3),
    st.lists(st.sampled_from([*RESOURCES, "*", "*/start", "*/*", "pods/*", "start"]), max_size=3),
    st.lists(st.sampled_from([*VERBS, "*"]), max_size=3),
)


def spelled_out(role: list[PolicyRule]) -> set[tuple[str, str, str]]:
    """Every group, resource and verb that the role allows, each wildcard replaced by what it stands for."""
    everything: set[tuple[str, str, str]] = set()
    for rule in role:
        groups = set(GROUPS) if "*" in rule.api_groups else set(rule.api_groups)
        verbs = set(VERBS) if "*" in rule.verbs else set(rule.verbs)
        resources: set[str] = set()
        for named in rule.resources:
            if named == "*":
                resources |= set(RESOURCES)
            elif named.startswith("*/"):
                resources |= {resource for resource in RESOURCES if resource.split("/")[1:] == [named[2:]]}
            else:
                resources.add(named)
        everything |= set(product(groups, resources, verbs))
    return everything


@given(st.lists(rules, max_size=3))
def test_a_role_allows_what_it_spells_out_and_nothing_else(role: list[PolicyRule]) -> None:
    asked = set(product(GROUPS, RESOURCES, VERBS))
    assert {each for each in asked if allows(role, *each)} == spelled_out(role) & asked


@pytest.mark.parametrize(
    ("group", "resource", "verb", "can"),
    [
        ("kubevirt.io", "virtualmachines", "update", True),
        ("kubevirt.io", "virtualmachines", "delete", False),
        ("kubevirt.io", "virtualmachines/status", "update", False),
        ("subresources.kubevirt.io", "virtualmachines/start", "update", False),
        ("", "virtualmachines", "get", False),
    ],
)
def test_an_operator(group: str, resource: str, verb: str, can: bool) -> None:
    assert allows(OPERATOR, group, resource, verb) is can


def test_a_resource_and_a_star_is_no_wildcard() -> None:
    role = [PolicyRule(["*"], ["virtualmachines/*", "*/*"], ["*"])]
    assert not allows(role, "subresources.kubevirt.io", "virtualmachines/start", "update")
