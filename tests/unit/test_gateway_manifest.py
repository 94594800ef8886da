"""What a request body may be. Not here: whether it is a VirtualMachine, which the kube-apiserver says."""

import json
from time import process_time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusters.gateway.manifest import MEDIA_TYPES, ManifestError, decode
from virtflow.kube.client import encode
from virtflow.safe_yaml import MAX_DEPTH

JSON, YAML = "application/json", "application/yaml"
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=5)


def is_json_object_or_refused(body: bytes, media_type: str) -> bool:
    try:
        manifest = decode(body, media_type)
    except ManifestError as error:
        return str(error).startswith("The request body cannot be read: ")
    return isinstance(json.loads(encode(manifest)), dict)


@given(OBJECTS)
def test_json_is_read_as_it_was_written(manifest: dict[str, object]) -> None:
    assert decode(json.dumps(manifest).encode(), JSON) == manifest


@given(OBJECTS)
def test_yaml_is_read_as_it_was_written(manifest: dict[str, object]) -> None:
    assert decode(yaml.safe_dump(manifest).encode(), YAML) == manifest


@given(st.binary(max_size=300), st.sampled_from(sorted(MEDIA_TYPES)))
def test_any_bytes_are_an_object_or_refused(body: bytes, media_type: str) -> None:
    assert is_json_object_or_refused(body, media_type)


@given(st.dictionaries(st.text(st.characters()), st.integers() | st.floats() | st.text(st.characters()), max_size=5))
def test_any_value_that_json_has_a_word_for_can_be_sent_on_or_is_refused(manifest: dict[str, object]) -> None:
    assert is_json_object_or_refused(json.dumps(manifest).encode(), JSON)


@given(st.text(alphabet="{}[]:,-?&*!|>'\"%@` #\n\t~01x_.eabn", max_size=60))
def test_any_yaml_is_an_object_or_refused(text: str) -> None:
    assert is_json_object_or_refused(text.encode(), YAML)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: yes", True),
        ("a: 'yes'", "yes"),
        ("a: 12", 12),
        ("a: 0x10", 16),
        ("a: 1Gi", "1Gi"),
        ("a: 1.5", 1.5),
        ("a:", None),
        ("a: 2026-01-02", "2026-01-02"),
        ("a: 1:30", "1:30"),
        ("a: [x, {b: 1}]", ["x", {"b": 1}]),
        ("a: |\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_yaml_scalars_are_what_kubectl_makes_of_them(text: str, value: object) -> None:
    assert decode(text.encode(), YAML) == {"a": value}


@pytest.mark.parametrize(
    ("body", "media_type", "why"),
    [
        (b"", JSON, "Expecting value"),
        (b"", YAML, "must be an object"),
        (b"[]", JSON, "must be an object"),
        (b"- a", YAML, "must be an object"),
        (b"{'a': 1}", JSON, "Expecting property name"),
        (b'{"a": 1, "a": 1}', JSON, "'a' is there twice"),
        (b"a: 1\nb: {c: 1, c: 2}", YAML, "'c' is there twice"),
        (b'{"a": NaN}', JSON, "not JSON compliant"),
        (b'{"a": 1e999}', JSON, "not JSON compliant"),
        (b"a: .inf", YAML, "not JSON compliant"),
        (b'{"a": ' + b"9" * 5000 + b"}", JSON, "digits"),
        (b"a: 0x" + b"f" * 5000, YAML, "digits"),
        (b'{"a": 99999999999999999999}', JSON, "64-bit"),
        (b"a: -99999999999999999999", YAML, "64-bit"),
        (rb'{"a": "\ud800"}', JSON, "surrogates"),
        (rb'{"\ud800": 1}', JSON, "surrogates"),
        (b"1: a", YAML, "put it in quotes"),
        (b"? [a]\n: b", YAML, "not a string"),
        (b"a: &x 1\nb: *x", YAML, "alias"),
        (b"a: !!python/name:os.system ''", YAML, "tag"),
        (b"a: !!binary aGk=", YAML, "tag"),
        (b"!!set {a, b}", YAML, "tag"),
        (b"a: 1\n---\nb: 2", YAML, "more than one document"),
        (b"a: 1\n...\n---\n", YAML, "more than one document"),
        (b'{"a": 1} {"b": 2}', JSON, "Extra data"),
        (b"a: [1", YAML, "expected ',' or ']'"),
        (b'{"a": "\xff"}', JSON, "utf-8"),
        ('{"a": 1}'.encode("utf-16"), JSON, "utf-8"),
        (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, JSON, "nested deeper"),
        (b"[" * 100_000, JSON, "nested deeper"),
        (b"a: " + b"[" * (MAX_DEPTH) + b"]" * (MAX_DEPTH), YAML, "nested deeper"),
    ],
)
def test_refused(body: bytes, media_type: str, why: str) -> None:
    with pytest.raises(ManifestError, match="cannot be read") as refusal:
        decode(body, media_type)
    assert why in str(refusal.value)


def test_nesting_up_to_the_limit_is_read() -> None:
    levels = MAX_DEPTH - 1
    assert decode(b'{"a":' * levels + b"1" + b"}" * levels, JSON)


@pytest.mark.parametrize(
    "body",
    [
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefghi"),
        b"a: " + b":".join([b"1"] * 500_000),
        b"a: " + b"9" * 1_000_000,
        b"a: " + b"[" * 1_000_000,
        b"a:\n" + b"- b\n" * 250_000,
        b"a: 1\n" * 200_000,
    ],
    ids=["billion laughs", "sexagesimal", "digits", "brackets", "long list", "duplicates"],
)
def test_a_mebibyte_of_malice_costs_seconds_at_most(body: bytes) -> None:
    started = process_time()
    assert is_json_object_or_refused(body, YAML)
    assert process_time() - started < 10
