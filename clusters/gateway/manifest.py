"""Reading an object from a request body: JSON, or as much of YAML as JSON can say.

The reader only makes sure that there is one meaning: no key twice, no second document, nothing JSON has no
word for. Whether it is what it says it is, is the kube-apiserver's to say, in its own words.
"""

import json
from collections.abc import Callable, Iterable

from virtflow.kube import Object
from virtflow.kube.client import encode
from virtflow.safe_yaml import MAX_DEPTH, object_of, read_yaml

__all__ = ["JSON", "MEDIA_TYPES", "ManifestError", "decode"]

JSON = "application/json"

UNREADABLE = "The request body cannot be read:"


class ManifestError(ValueError):
    """The body is no object; the message says what is wrong with it, for the caller."""


def decode(body: bytes, media_type: str) -> Object:
    """The object in `body`, made of what JSON can carry and nothing else.

    Raises ManifestError; `KeyError` for a media type that is not one of MEDIA_TYPES.
    """
    read = MEDIA_TYPES[media_type]
    try:
        manifest = read(body.decode())
        if not isinstance(manifest, dict):
            raise ManifestError("it must be an object")
        _check_depth(manifest)
        json.dumps(manifest, allow_nan=False)  # the numbers JSON has no word for: infinities, endless digits
        encode(manifest)  # what cannot be sent on: more than 64 bits, half a character
    except RecursionError:
        raise ManifestError(f"{UNREADABLE} it is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise ManifestError(f"{UNREADABLE} {error}") from error
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


def _read_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=object_of)


MEDIA_TYPES: dict[str, Callable[[str], object]] = {
    JSON: _read_json,
    "application/yaml": read_yaml,
    "application/x-yaml": read_yaml,
}
