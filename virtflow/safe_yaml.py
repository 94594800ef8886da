"""YAML from whom nobody knows: as much of it as JSON can say.

It is read from its events, not by a loader: the events come from libyaml's iterative parser, so that aliases (the
billion laughs), tags and nesting are refused before anything is built of them. A loader follows them all, and
libyaml's own loader recurses in C, where the nesting of a few kilobytes ends the process.

There is one meaning or none: no key twice, no second document.
"""

from collections.abc import Callable, Sequence
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from virtflow.kube import Object

__all__ = ["MAX_DEPTH", "line_of", "object_of", "read_yaml"]

MAX_DEPTH = 100
"""Levels of nesting. A VirtualMachine has about 12; Python's own encoder gives up somewhere under 1000."""


def read_yaml(text: str) -> object:
    """The value of a document; None if there is nothing in it.

    Raises ValueError, which says what is wrong, RecursionError for what is nested too deeply.
    """
    try:
        return _value(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _value(text: str) -> object:
    documents: list[Any] = []
    open_collections = [documents]
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias (*{event.anchor}): write the value out")
        if isinstance(event, yaml.ScalarEvent):
            open_collections[-1].append(_scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.tag:
                raise ValueError(f"it has a tag ({event.tag}), which JSON has no word for")
            # Here, not afterwards: libyaml's time for each further bracket grows with the open ones.
            if len(open_collections) > MAX_DEPTH:
                raise RecursionError
            open_collections.append([])
        elif isinstance(event, yaml.CollectionEndEvent):
            items = open_collections.pop()
            if isinstance(event, yaml.MappingEndEvent):
                open_collections[-1].append(object_of(list(zip(items[::2], items[1::2], strict=True))))
            else:
                open_collections[-1].append(items)
        elif isinstance(event, yaml.DocumentEndEvent) and len(documents) > 1:
            raise ValueError("it has more than one document: send one request for each")
    return documents[0] if documents else None


class _Plain(SafeConstructor, Resolver):
    """What PyYAML makes of a word without quotes (YAML 1.1, as kubectl reads it)."""


_PLAIN = _Plain()
_TYPED: dict[str, Callable[[yaml.ScalarNode], object]] = {
    "tag:yaml.org,2002:null": _PLAIN.construct_yaml_null,
    "tag:yaml.org,2002:bool": _PLAIN.construct_yaml_bool,
    "tag:yaml.org,2002:int": _PLAIN.construct_yaml_int,
    "tag:yaml.org,2002:float": _PLAIN.construct_yaml_float,
}


def _scalar(event: yaml.ScalarEvent) -> object:
    plain, _ = event.implicit
    if event.tag:
        raise ValueError(f"it has a tag ({event.tag}), which JSON has no word for")
    # YAML 1.1 reads 1:30 as 90, and takes time quadratic in its length to do so; kubectl reads a string.
    if not plain or ":" in event.value:
        return event.value
    tag = _PLAIN.resolve(yaml.ScalarNode, event.value, (True, False))  # type: ignore[no-untyped-call]
    construct = _TYPED.get(tag)
    return construct(yaml.ScalarNode(tag, event.value)) if construct else event.value


def object_of(pairs: list[tuple[str, Any]]) -> Object:
    """Of keys and values. Raises ValueError for a key that is no string, or there twice."""
    result: Object = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ValueError(f"the key {key!r} is not a string: put it in quotes")
        if key in result:
            raise ValueError(f"the key {key!r} is there twice in one object")
        result[key] = value
    return result


def line_of(text: str, path: Sequence[int | str]) -> int:
    """The line, from 1, where a document that `read_yaml` has read says what is at a path of keys and indexes.

    Of what is not there it is the line of what should hold it.
    """
    node = yaml.compose(text, Loader=yaml.CSafeLoader)
    line = node.start_mark.line if node else 0
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((name, value) for name, value in node.value if name.value == str(key)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            found = node.value[key], node.value[key]
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line, found[1]
    return int(line) + 1
