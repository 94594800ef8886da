"""Finds every fault of the features before anything is started, and names them all at once.

pytest-bdd stops at the first, after minutes perhaps, and lets some pass in silence: of two scenarios of one name it
keeps the last, of two definitions that match it takes one, a coroutine is never awaited, a Scenario Outline without
examples runs with its placeholders as they stand, and a scenario without steps passes. So this reads the Gherkin
documents themselves, and the step definitions as pytest-bdd registered them.
"""

import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from gherkin.dialect import Dialect
from gherkin.errors import CompositeParserException
from gherkin.parser import Parser
from pytest_bdd.gherkin_parser import Background, ExamplesTable, Feature, GherkinDocument, Scenario, Step, Tag
from pytest_bdd.parser import PARAM_RE, render_string
from pytest_bdd.steps import StepFunctionContext, step_function_context_registry
from pytest_bdd.types import STEP_TYPE_BY_PARSER_KEYWORD

from tests.e2e.phrases import Checked
from virtflow.errors import InputError

__all__ = ["Fault", "FeatureError", "Vocabulary", "check_features", "find_faults"]


@dataclass(frozen=True, order=True)
class Fault:
    """Where it is, what it is, and what to do."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{_short(self.file)}:{self.line}: {self.text}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


class FeatureError(InputError):
    """All faults of the features."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        number = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"The features have {number}. Nothing was started.\n{lines}")


def check_features(folder: Path, modules: Sequence[ModuleType], markers: Collection[str]) -> None:
    """Raises FeatureError if the features in the folder cannot be run with the steps of these modules.

    `markers` are the tags that mean something.
    """
    if faults := find_faults(folder, Vocabulary(modules), markers):
        raise FeatureError(faults)


class Vocabulary:
    """The step definitions of some modules: what a feature can say."""

    def __init__(self, modules: Sequence[ModuleType]) -> None:
        names = {module.__name__ for module in modules}
        registered = list(step_function_context_registry.values())
        self._definitions = [each for each in registered if each.step_func.__module__ in names]

    def coroutines(self) -> Iterator[Fault]:
        for definition in self._definitions:
            step = definition.step_func
            if inspect.iscoroutinefunction(step) or inspect.isasyncgenfunction(step):
                file, line = _source(definition)
                yield Fault(
                    file, line, f"The step {step.__name__} is a coroutine, which nobody awaits: make it a def."
                )

    def matching(self, kind: str, text: str) -> list[StepFunctionContext]:
        """The definitions that a step's text matches; kind is given, when or then."""
        return [each for each in self._definitions if each.type in (None, kind) and each.parser.is_matching(text)]

    def nearest(self, kind: str, text: str) -> str:
        """What an author who wrote this text may have meant: words to add to the fault, or none."""
        for other in ("given", "when", "then"):
            if self.matching(other, text):
                return f" It is a {other.title()} step."
        shapes = {_shape(each.parser.name): each for each in self._definitions if each.type in (None, kind)}
        shapes = {_shape(each.parser.name): each for each in self._definitions} | shapes
        for shape in get_close_matches(_shape(text), shapes, n=1, cutoff=0.5):
            found = shapes[shape]
            return f" The nearest is: {(found.type or kind).title()} {_for_people(found.parser.name)}"
        return ""


def _source(definition: StepFunctionContext) -> tuple[Path, int]:
    code = inspect.unwrap(definition.step_func).__code__
    return Path(code.co_filename), code.co_firstlineno


def _shape(text: str) -> str:
    """The words alone: what stands between quotation marks, and numbers, are the author's own."""
    return re.sub(r'"[^"]*"|\{[^}]*\}|<[^>]*>|\d+', "…", text)


def _for_people(pattern: str) -> str:
    return re.sub(r"\{(\w+)[^}]*\}", r"{\1}", pattern)


def find_faults(folder: Path, vocabulary: Vocabulary, markers: Collection[str]) -> list[Fault]:
    """Every fault of the `*.feature` files in the folder and the folders in it, in their order."""
    files = sorted(folder.rglob("*.feature"))
    if not files:
        return [Fault(folder, 1, "There is no *.feature file in this folder. Write one: README.md shows how.")]
    faults = set(vocabulary.coroutines())
    features: dict[str, tuple[Path, int]] = {}
    for file in files:
        feature = _read(file, faults)
        if feature is None:
            continue
        if feature.name in features:
            other, line = features[feature.name]
            text = f"Another feature has this name: {other.relative_to(folder)}:{line}. Rename one of them."
            faults.add(Fault(file, feature.location.line, text))
        features.setdefault(feature.name, (file, feature.location.line))
        faults |= {Fault(file, line, text) for line, text in _Check(feature, folder, vocabulary, markers).faults()}
    return sorted(faults)


def _read(file: Path, faults: set[Fault]) -> Feature | None:
    try:
        data: Mapping[str, Any] = Parser().parse(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        faults.add(Fault(file, 1, f"It cannot be read: {error.strerror}."))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        faults.add(Fault(file, line, "This is not UTF-8. Save the file as UTF-8."))
    except CompositeParserException as error:
        for fault in error.errors:
            # It begins with its own position.
            text = str(fault).partition("): ")[2]
            faults.add(Fault(file, fault.location["line"], f"This is not Gherkin: {text}."))
    else:
        if data.get("feature"):
            return GherkinDocument.from_dict(data).feature
        faults.add(Fault(file, 1, "It holds no feature. Write one or remove the file."))
    return None


class _Check:
    """One feature against the vocabulary. A fault is its line and its text."""

    def __init__(self, feature: Feature, folder: Path, vocabulary: Vocabulary, markers: Collection[str]) -> None:
        self._feature = feature
        self._folder = folder
        self._vocabulary = vocabulary
        self._markers = markers
        dialect = Dialect.for_name(feature.language)
        assert dialect is not None, "The parser accepts no other language."
        self._outline = dialect.scenario_outline_keywords

    def faults(self) -> Iterator[tuple[int, str]]:
        feature = self._feature
        children = [
            *feature.children,
            *(each for child in feature.children if child.rule for each in child.rule.children),
        ]
        scenarios = [child.scenario for child in children if child.scenario]
        if not feature.name.strip():
            yield feature.location.line, "This feature has no name. Give it one."
        if not scenarios:
            yield feature.location.line, "This feature has no scenario. Write one or remove the file."
        for tag in [*feature.tags, *(tag for child in children if child.rule for tag in child.rule.tags)]:
            yield from self._tag(tag)
        for child in children:
            if child.background:
                yield from self._steps(child.background, [{}])
        names: dict[str, int] = {}
        for scenario in scenarios:
            yield from self._scenario(scenario)
            if scenario.name in names:
                first = names[scenario.name]
                yield scenario.location.line, f"Line {first} has a scenario of this name. Rename one of them."
            names.setdefault(scenario.name, scenario.location.line)

    def _scenario(self, scenario: Scenario) -> Iterator[tuple[int, str]]:
        line = scenario.location.line
        if not scenario.name.strip():
            yield line, "This scenario has no name. Give it one."
        if not scenario.steps:
            yield line, "This scenario has no steps, and would pass. Write them or remove it."
        for tag in [*scenario.tags, *(tag for table in scenario.examples for tag in table.tags)]:
            yield from self._tag(tag)
        if scenario.keyword not in self._outline and not scenario.examples:
            yield from self._steps(scenario, [{}])
            return
        if not scenario.examples:
            yield line, "This Scenario Outline has no Examples. Add a table of them, or make it a Scenario."
        for table in scenario.examples:
            yield from self._examples(scenario, table)

    def _examples(self, scenario: Scenario, table: ExamplesTable) -> Iterator[tuple[int, str]]:
        columns = [cell.value for cell in table.table_header.cells] if table.table_header else []
        rows = [dict(zip(columns, (cell.value for cell in row.cells), strict=True)) for row in table.table_body or ()]
        if not rows:
            yield table.location.line, "These Examples have no row. Add one, under a header with the placeholders."
            return
        for line, text in _texts(scenario):
            for name in PARAM_RE.findall(text):
                if name not in columns:
                    at = f"the Examples at line {table.location.line}"
                    yield line, f"<{name}> is no column of {at}, which has {', '.join(columns)}. Add or rename it."
        yield from self._steps(scenario, rows)

    def _steps(self, holder: Scenario | Background, rows: Sequence[Mapping[str, str]]) -> Iterator[tuple[int, str]]:
        kind = ""
        for step in holder.steps:
            kind = STEP_TYPE_BY_PARSER_KEYWORD.get(step.keyword_type, kind)
            if not kind:
                text = f"The first step begins with {step.keyword}. Begin it with Given, When or Then."
                yield step.location.line, text
                return
            # A placeholder that no column fills has been said.
            filled = [row for row in rows if not row or set(PARAM_RE.findall(step.text)) <= row.keys()]
            for text in sorted({render_string(step.text, row) for row in filled}):
                yield from ((step.location.line, fault) for fault in self._step(kind, step, text))

    def _step(self, kind: str, step: Step, text: str) -> Iterator[str]:
        match self._vocabulary.matching(kind, text):
            case []:
                yield f"No step is defined as '{step.keyword} {text}'.{self._vocabulary.nearest(kind, text)}"
            case [definition]:
                for value in (definition.parser.parse_arguments(text) or {}).values():
                    if isinstance(value, Checked) and (fault := value.fault(self._folder)):
                        yield fault
            case several:
                sources = [_source(each) for each in several]
                places = " and ".join(f"{_short(file)}:{line}" for file, line in sources)
                yield f"'{step.keyword} {text}' is ambiguous: {places} match. Make one of them narrower."

    def _tag(self, tag: Tag) -> Iterator[tuple[int, str]]:
        name = tag.name.removeprefix("@")
        if name not in self._markers:
            yield tag.location.line, f"The tag @{name} is not a marker in pyproject.toml. Remove it or register it."


def _texts(scenario: Scenario) -> Iterator[tuple[int, str]]:
    """Everything of a scenario that may hold placeholders, with its line."""
    yield scenario.location.line, scenario.name
    for step in scenario.steps:
        yield step.location.line, step.text
        if step.docstring:
            yield step.docstring.location.line, step.docstring.content
        for row in step.datatable.rows if step.datatable else ():
            yield from ((row.location.line, cell.value) for cell in row.cells)
