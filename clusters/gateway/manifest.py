"""Reading a VirtualMachine from a request body: JSON, or as much of YAML as JSON can say.

The reader only makes sure that there is one meaning: no key twice, no second document, nothing JSON has no
word for. Whether it is a VirtualMachine is the kube-apiserver's to say, in its own words.

YAML is read from its events, not by a loader: the events come from libyaml's iterative parser, so that aliases
(the billion laughs), tags and nesting are refused before anything is built of them.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from virtflow.kube import Object
from virtflow.kube.client import encode

__all__ = ["MEDIA_TYPES", "ManifestError", "decode"]

MAX_DEPTH = 100
"""Levels of nesting. A VirtualMachine has about 12; Python's own encoder gives up somewhere under 1000."""

NO_MANIFEST = "The request body is no manifest:"


class ManifestError(ValueError):
    """The body is no manifest; the message says what is wrong with it, for the caller."""


def decode(body: bytes, media_type: str) -> Object:
    """The object in `body`, made of what JSON can carry and nothing else.

    Raises ManifestError; `KeyError` for a media type that is not one of MEDIA_TYPES.
    """
    read = MEDIA_TYPES[media_type]
    try:
        manifest = read(body.decode())
        if not isinstance(manifest, dict):
            raise ManifestError("it must be an object, with apiVersion, kind, metadata and spec")
        _check_depth(manifest)
        json.dumps(manifest, allow_nan=False)  # the numbers JSON has no word for: infinities, endless digits
        encode(manifest)  # what cannot be sent on: more than 64 bits, half a character
    except RecursionError:
        raise ManifestError(f"{NO_MANIFEST} it is nested deeper than {MAX_DEPTH} levels") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ManifestError(f"{NO_MANIFEST} {error}") from error
    return manifest


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise RecursionError


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _object(pairs: list[tuple[str, Any]]) -> Object:
    result: Object = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise ManifestError(f"the key {key!r} is not a string: put it in quotes")
        if key in result:
            raise ManifestError(f"the key {key!r} is there twice in one object")
        result[key] = value
    return result


def _read_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_object)


def _read_yaml(text: str) -> object:
    documents: list[Any] = []
    open_collections = [documents]
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ManifestError(f"it has an alias (*{event.anchor}): write the value out")
        if isinstance(event, yaml.ScalarEvent):
            open_collections[-1].append(_scalar(event))
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.tag:
                raise ManifestError(f"it has a tag ({event.tag}), which JSON has no word for")
            # Here, not afterwards: libyaml's time for each further bracket grows with the open ones.
            if len(open_collections) > MAX_DEPTH:
                raise RecursionError
            open_collections.append([])
        elif isinstance(event, yaml.CollectionEndEvent):
            items = open_collections.pop()
            if isinstance(event, yaml.MappingEndEvent):
                open_collections[-1].append(_object(list(zip(items[::2], items[1::2], strict=True))))
            else:
                open_collections[-1].append(items)
        elif isinstance(event, yaml.DocumentEndEvent) and len(documents) > 1:
            raise ManifestError("it has more than one document: send one request for each")
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
        raise ManifestError(f"it has a tag ({event.tag}), which JSON has no word for")
    # YAML 1.1 reads 1:30 as 90, and takes time quadratic in its length to do so; kubectl reads a string.
    if not plain or ":" in event.value:
        return event.value
    tag = _PLAIN.resolve(yaml.ScalarNode, event.value, (True, False))  # type: ignore[no-untyped-call]
    construct = _TYPED.get(tag)
    return construct(yaml.ScalarNode(tag, event.value)) if construct else event.value


MEDIA_TYPES: dict[str, Callable[[str], object]] = {
    "application/json": _read_json,
    "application/yaml": _read_yaml,
    "application/x-yaml": _read_yaml,
}
