"""What goes into and comes out of workflows and activities: typed, plain, and the same after its way."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import activities
from virtflow.temporal import DATA_CONVERTER
from virtflow.worker import WORKFLOWS

SCALARS = (str, int, float, bool, NoneType, datetime, timedelta)
YEARS = timedelta(days=3650)
NAMES = st.text(st.characters(codec="utf-8"), max_size=8)

Handler = Callable[..., Any]


def handlers() -> Iterator[tuple[str, Handler]]:
    """What is called with payloads: of each workflow `run`, updates, signals and queries, and all activities."""
    for workflow in WORKFLOWS:
        yield from handlers_of(workflow)
    for module in pkgutil.iter_modules(activities.__path__, "activities."):
        members = vars(importlib.import_module(module.name)).values()
        for each in members:
            if inspect.isclass(each) and each.__module__ == module.name:
                yield from handlers_of(each)


def handlers_of(owner: type) -> Iterator[tuple[str, Handler]]:
    for name, member in vars(owner).items():
        marks = vars(member) if inspect.isfunction(member) else {}
        # As the SDK's decorators leave them.
        if name != "__init__" and any(mark.startswith("__temporal") or mark == "_defn" for mark in marks):
            yield f"{owner.__name__}.{name}", member


def payload_types() -> dict[str, Any]:
    """By where they go in or come out."""
    found = {}
    for name, handler in handlers():
        for parameter, hint in get_type_hints(handler).items():
            found[f"{name} {parameter}"] = hint
    return found


PAYLOADS = payload_types()


def test_all_handlers_are_found() -> None:
    names = {name for name, _ in handlers()}
    assert len(names) > 40
    assert {"Scenario.run", "Scenario.end", "Scenario.create_tenant", "Gateway.send", "Load.run"} <= names


@pytest.mark.parametrize("handler", [pytest.param(handler, id=name) for name, handler in handlers()])
def test_it_takes_one_typed_argument_at_most(handler: Handler) -> None:
    """A message that gets a field is read by who knew it without; one that gets a parameter is not."""
    parameters = list(inspect.signature(handler).parameters)
    assert len(parameters) <= 2
    assert set(get_type_hints(handler)) == {*parameters[1:], "return"}


@pytest.mark.parametrize("where", PAYLOADS)
def test_it_is_plain_data(where: str) -> None:
    assert list(faults(PAYLOADS[where])) == []


def is_record(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint)


def faults(hint: Any) -> Iterator[str]:
    """What in a type is neither a frozen dataclass, a scalar, an enum, nor a list, a dict or a choice of such."""
    origin = get_origin(hint)
    if origin in (list, dict, Union, UnionType):
        for each in get_args(hint):
            yield from faults(each)
    elif is_record(hint):
        if not hint.__dataclass_params__.frozen:
            yield f"{hint} may change"
        for each in get_type_hints(hint).values():
            yield from faults(each)
    elif not (hint is Any or hint in SCALARS or issubclass(hint, Enum)):
        yield f"{hint}"


@pytest.mark.parametrize("where", PAYLOADS)
def test_it_arrives_as_it_was_sent(where: str) -> None:
    hint = PAYLOADS[where]

    @settings(max_examples=10)
    @given(values(hint))
    def arrives(value: Any) -> None:
        converter = DATA_CONVERTER.payload_converter
        sent = converter.to_payloads([value])
        assert converter.from_payloads(sent, [hint]) == [value]

    arrives()


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, as JSON can say it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return st.lists(values(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if is_record(hint):
        return st.builds(hint, **{name: values(each) for name, each in get_type_hints(hint).items()})
    by_type: dict[Any, st.SearchStrategy[Any]] = {
        Any: st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NAMES, st.lists, max_leaves=3),
        str: NAMES,
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
        timedelta: st.timedeltas(-YEARS, YEARS),
        datetime: st.datetimes(timezones=st.just(UTC)),
    }
    return by_type[hint] if hint in by_type else st.from_type(hint)
