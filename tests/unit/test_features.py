"""The check of the features: it finds what pytest-bdd stops at, and what it would let pass in silence."""

import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2e.check import FeatureError, Vocabulary, check_features, find_faults
from tests.e2e.steps import MODULES
from tests.unit import vocabulary, vocabulary_of_coroutines

FEATURES = Path(__file__).parents[2] / "features"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of features, without any, with one manifest; the working directory is beside it."""
    folder = tmp_path / "features"
    (folder / "manifests").mkdir(parents=True)
    (folder / "manifests" / "vm.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return folder


def faults(folder: Path, text: str, module: ModuleType = vocabulary) -> list[str]:
    """As they are told, of a feature file with this text. Its first line is the feature's own."""
    (folder / "a.feature").write_text("Feature: A\n" + textwrap.dedent(text))
    return [str(fault) for fault in find_faults(folder, Vocabulary([module]), {"slow"})]


def scenario(folder: Path, steps: str) -> list[str]:
    return faults(folder, "Scenario: One\n" + textwrap.dedent(steps))


def test_the_projects_own_features_have_no_fault() -> None:
    assert list(FEATURES.rglob("*.feature"))
    check_features(FEATURES, MODULES, ())


def test_a_feature_that_uses_everything_has_no_fault(folder: Path) -> None:
    text = """
    Background:
      Given the tenant "tenant-a"

    @slow
    Scenario: One
      When "tenant-a" creates "vm.yaml"
      And "tenant-a" creates "vm.yaml"
      Then the gateway answers 201

    Rule: R
      Background:
        Given the tenant "<literally>"
      Scenario Outline: Two <code>
        * the tenant "tenant-b"
        Then the gateway answers <code>
        Examples:
          | code |
          | 201  |
          | 409  |
    """
    assert faults(folder, text.replace('* the tenant "tenant-b"', 'Given the tenant "tenant-b"')) == []


def test_a_feature_in_another_language_is_checked_like_any(folder: Path) -> None:
    (folder / "a.feature").write_text(
        '# language: zh-CN\n功能: 甲\n  场景: 乙\n    假如the tenant "甲"\n    那么没有\n'
    )
    [fault] = find_faults(folder, Vocabulary([vocabulary]), ())
    assert str(fault) == "features/a.feature:5: No step is defined as '那么 没有'."


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ('When "a" creats "vm.yaml"', ' The nearest is: When "{tenant}" creates "{manifest}"'),
        ('Then the tenant "b"', " It is a Given step."),
        ("Then the moon rises", ""),
    ],
)
def test_a_step_without_a_definition_is_named_with_the_nearest(folder: Path, text: str, advice: str) -> None:
    expected = f"features/a.feature:4: No step is defined as '{text}'.{advice}"
    assert scenario(folder, f'Given the tenant "a"\n{text}\n') == [expected]


def test_a_step_with_two_definitions_names_both(folder: Path) -> None:
    [fault] = scenario(folder, "Then it takes 5 seconds\n")
    file = Path(vocabulary.__file__)
    lines = [number for number, line in enumerate(file.read_text().splitlines(), 1) if "it takes" in line]
    places = " and ".join(f"{file}:{line}" for line in lines)
    assert fault == (
        f"features/a.feature:3: 'Then it takes 5 seconds' is ambiguous: {places} match. Make one of them narrower."
    )


def test_a_step_that_is_a_coroutine_is_named_where_it_is_defined(folder: Path) -> None:
    found = faults(folder, "Scenario: One\nGiven something that is awaited\n", vocabulary_of_coroutines)
    file = vocabulary_of_coroutines.__file__
    assert found == [
        f"{file}:8: The step awaited is a coroutine, which nobody awaits: make it a def.",
        f"{file}:13: The step iterated is a coroutine, which nobody awaits: make it a def.",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: This feature has no scenario. Write one or remove the file."),
        ("Scenario: One\n", "2: This scenario has no steps, and would pass. Write them or remove it."),
        ('Scenario:\nGiven the tenant "a"\n', "2: This scenario has no name. Give it one."),
        (
            'Scenario: One\nGiven the tenant "a"\nRule: R\nScenario: One\nGiven the tenant "a"\n',
            "5: Line 2 has a scenario of this name. Rename one of them.",
        ),
        (
            'Scenario: One\nAnd the tenant "a"\n',
            "3: The first step begins with And. Begin it with Given, When or Then.",
        ),
        (
            '@fast @slow\nScenario: One\nGiven the tenant "a"\n',
            "2: The tag @fast is not a marker in pyproject.toml. Remove it or register it.",
        ),
        (
            'Scenario: One\nWhen "a" creates "wm.yaml"\n',
            "3: There is no manifest wm.yaml in features/manifests. Is it vm.yaml?",
        ),
        (
            'Scenario Outline: One\nGiven the tenant "<a>"\n',
            "2: This Scenario Outline has no Examples. Add a table of them, or make it a Scenario.",
        ),
        (
            'Scenario Outline: One\nGiven the tenant "<a>"\nExamples:\n| a |\n',
            "4: These Examples have no row. Add one, under a header with the placeholders.",
        ),
        (
            'Scenario Outline: One\nGiven the tenant "<a>"\n"""\n<c>\n"""\nExamples:\n| a | b |\n| 1 | 2 |\n',
            "4: <c> is no column of the Examples at line 7, which has a, b. Add or rename it.",
        ),
        (
            'Scenario Outline: One <c>\nGiven the tenant "<a>"\n|<a>|\nExamples:\n| a |\n| 1 |\n',
            "2: <c> is no column of the Examples at line 5, which has a. Add or rename it.",
        ),
        (
            'Scenario Outline: One\nWhen "a" creates "<b>.yaml"\nExamples:\n| b |\n| vm |\n| cm |\n',
            "3: There is no manifest cm.yaml in features/manifests. Is it vm.yaml?",
        ),
        ("Scenario: One\nGiven it\nGivn it\n", "4: This is not Gherkin: "),
    ],
)
def test_a_fault_is_told_with_its_line(folder: Path, text: str, expected: str) -> None:
    [fault] = faults(folder, text)
    assert fault.startswith(f"features/a.feature:{expected}")


def test_every_syntax_error_of_a_file_is_told(folder: Path) -> None:
    found = faults(folder, 'Scenario: One\nGiven the tenant "a"\nThn it\nGiven the tenant "a"\nWen it\n')
    assert [fault.split(":")[1] for fault in found] == ["4", "6"]
    assert all(": This is not Gherkin: expected: " in fault for fault in found)


def test_two_features_of_one_name_are_a_fault_also_in_folders(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "more" / "b.feature").write_text('\nFeature: A\nScenario: Two\nGiven the tenant "a"\n')
    [fault] = scenario(folder, 'Given the tenant "a"\n')
    assert fault == "features/more/b.feature:2: Another feature has this name: a.feature:1. Rename one of them."


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 1, "It holds no feature."),
        (b"# nothing yet\n", 1, "It holds no feature."),
        (b"Feature: A\nScenario: \xff\n", 2, "This is not UTF-8."),
        (b"# language: klingon\nFeature: A\n", 1, "This is not Gherkin: Language not supported: klingon."),
        (b'Feature:\nScenario: One\nGiven the tenant "a"\n', 1, "This feature has no name."),
    ],
)
def test_a_file_that_holds_no_feature_is_a_fault(folder: Path, content: bytes, line: int, words: str) -> None:
    (folder / "a.feature").write_bytes(content)
    [fault] = find_faults(folder, Vocabulary([vocabulary]), ())
    assert (fault.line, fault.text[: len(words)]) == (line, words)


def test_a_file_that_cannot_be_read_is_a_fault(folder: Path) -> None:
    (folder / "a.feature").mkdir()
    [fault] = find_faults(folder, Vocabulary([vocabulary]), ())
    assert fault.text == "It cannot be read: Is a directory."


def test_a_folder_without_features_is_a_fault(folder: Path) -> None:
    [fault] = find_faults(folder, Vocabulary([vocabulary]), ())
    assert str(fault).startswith("features:1: There is no *.feature file in this folder.")


def test_all_faults_are_told_at_once_in_their_order(folder: Path) -> None:
    scenario(folder, "Then it rains\nThen it snows\n")
    (folder / "b.feature").touch()
    with pytest.raises(FeatureError) as raised:
        check_features(folder, [vocabulary], ())
    lines = str(raised.value).splitlines()
    assert lines[0] == "The features have 3 faults. Nothing was started."
    assert [line.split(": ")[0] for line in lines[1:]] == [
        "  features/a.feature:3",
        "  features/a.feature:4",
        "  features/b.feature:1",
    ]


LINES = st.sampled_from(
    [
        "Feature: A",
        "Background:",
        "Rule: R",
        "Scenario: One",
        "Scenario Outline: Two <a>",
        "Examples:",
        "| a | b |",
        "| 1 |",
        '"""',
        "@tag",
        "# language: xx",
        'Given the tenant "<a>"',
        "And",
        "* x",
        "",
    ]
)


@settings(max_examples=300)
@given(lines=st.lists(LINES | st.text(max_size=12), max_size=12))
def test_whatever_is_in_a_file_is_told_and_not_raised(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("features")
    text = "\n".join(lines)
    (folder / "a.feature").write_text(text, encoding="utf-8", errors="replace")
    found = find_faults(folder, Vocabulary([vocabulary]), ())
    assert all(1 <= fault.line <= text.count("\n") + text.count("\r") + 2 for fault in found)
    assert found or "Scenario" in text
