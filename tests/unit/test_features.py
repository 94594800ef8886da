"""What pytest-bdd would let pass in silence: two scenarios of one name become one, of two steps that match one is
taken, and a coroutine is never awaited."""

import inspect
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd.feature import get_features
from pytest_bdd.parser import Feature
from pytest_bdd.steps import step_function_context_registry

from tests.e2e import steps

FOLDER = Path(__file__).parents[2] / "features"
FEATURES: list[Feature] = get_features([str(FOLDER)])
DEFINITIONS = [
    definition
    for definition in step_function_context_registry.values()
    if definition.step_func.__module__ == steps.__name__
]


def matching(kind: str, text: str) -> list[Any]:
    return [
        definition.step_func
        for definition in DEFINITIONS
        if definition.type in (None, kind) and definition.parser.is_matching(text)
    ]


def all_steps() -> list[tuple[str, str]]:
    return sorted(
        {
            (step.type, step.name)
            for feature in FEATURES
            for scenario in feature.scenarios.values()
            for step in scenario.all_background_steps + scenario.steps
        }
    )


def test_there_is_something_to_check() -> None:
    assert len(FEATURES) >= 2
    assert len(DEFINITIONS) >= 15


@pytest.mark.parametrize(("kind", "text"), all_steps())
def test_each_step_has_one_definition(kind: str, text: str) -> None:
    assert len(matching(kind, text)) == 1


def test_scenarios_have_names_of_their_own() -> None:
    for file in FOLDER.glob("*.feature"):
        lines = [line.strip() for line in file.read_text().splitlines()]
        names = Counter(line for line in lines if line.startswith(("Scenario:", "Scenario Outline:")))
        assert names
        assert max(names.values()) == 1, f"{file.name}: {names.most_common(1)}"


def test_no_step_is_a_coroutine() -> None:
    assert not [
        definition.step_func for definition in DEFINITIONS if inspect.iscoroutinefunction(definition.step_func)
    ]


def test_each_manifest_that_is_named_is_there() -> None:
    named = {word for _, text in all_steps() for word in text.split('"') if word.endswith(".yaml")}
    assert named
    assert not [name for name in named if not (FOLDER / "manifests" / name).exists()]
