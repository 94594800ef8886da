"""The labels of what a run makes: derived, the run's own, and on all that comes of a manifest."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.manifests import label
from workflows.labels import RUN, SCENARIO, labels_of, run_of

LABELS = {RUN: "r", SCENARIO: "s"}
RUNS = st.from_regex("[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)


@given(RUNS, st.text())
def test_the_labels_of_a_workflow_name_its_run_and_are_the_same_each_time(run: str, rest: str) -> None:
    labels = labels_of(f"{run}/{rest}")
    assert labels[RUN] == run == run_of(run)
    assert labels == labels_of(f"{run}/{rest}") != labels_of(f"{run}/{rest}x")


SCALARS = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
MAPS = st.none() | st.dictionaries(st.text(), st.text(), max_size=3)
METADATA = st.none() | st.fixed_dictionaries({}, optional={"name": st.text(), "labels": MAPS})
TEMPLATES = st.none() | st.fixed_dictionaries({}, optional={"metadata": METADATA, "spec": VALUES})
MANIFESTS = st.fixed_dictionaries(
    {"kind": st.text()},
    optional={
        "metadata": METADATA,
        "spec": st.none() | st.fixed_dictionaries({}, optional={"template": TEMPLATES, "replicas": st.integers()}),
    },
)


@given(MANIFESTS)
def test_an_object_and_its_template_get_them_and_nothing_else_changes(manifest: dict[str, Any]) -> None:
    before = copy.deepcopy(manifest)
    label(manifest, LABELS)
    template = (manifest.get("spec") or {}).get("template")
    old_template = (before.get("spec") or {}).get("template")
    for new, old in [(manifest, before), (template, old_template)]:
        if new is None or old is None:
            assert new is old
            continue
        labels = new["metadata"].pop("labels")
        assert labels.items() >= LABELS.items()
        old_metadata = old.get("metadata") or {}
        assert {**(old_metadata.pop("labels", None) or {}), **LABELS} == labels
        assert new.pop("metadata") == old_metadata
        old.pop("metadata", None)
    assert manifest == before


@given(VALUES)
def test_what_has_another_form_is_refused_in_two_ways(manifest: Any) -> None:
    try:
        label(manifest, LABELS)
    except (TypeError, AttributeError):
        return
    assert manifest["metadata"]["labels"].items() >= LABELS.items()


@pytest.mark.parametrize("manifest", [[], "a", {"metadata": "a"}, {"metadata": {"labels": "a"}}, {"spec": ["a"]}])
def test_no_object_is_taken_for_one(manifest: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        label(manifest, LABELS)
