import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.api.refusals import Refused
from clusters.kubevirt.api.subresources.options import (
    Options,
    PauseOptions,
    RestartOptions,
    StartOptions,
    StopOptions,
    read_options,
)


@pytest.mark.parametrize(
    "body", [b"", b"  \n", b"{}", b"null", b"---\n", b'{"unknown": 1}', b'{"gracePeriod": null}']
)
def test_nothing_said_is_nothing_asked(body: bytes) -> None:
    assert read_options(body, StopOptions) == StopOptions()


def test_json_and_yaml_are_read() -> None:
    assert read_options(b'{"gracePeriod": 5, "dryRun": ["All"]}', StopOptions).grace_period == 5
    assert read_options(b"gracePeriod: 5\ndryRun: [All]\n", StopOptions).dry_run == ["All"]
    assert read_options(b'{"paused": true}', StartOptions).paused
    assert read_options(b'{"gracePeriodSeconds": 0}', RestartOptions).grace_period_seconds == 0


@pytest.mark.parametrize(
    ("model", "body", "why"),
    [
        (StopOptions, b'{"gracePeriod": "x"}', "string into Go struct field StopOptions.gracePeriod of type int64"),
        (
            StopOptions,
            b'{"gracePeriod": 99999999999999999999999}',
            "number 99999999999999999999999 into Go struct field StopOptions.gracePeriod of type int64",
        ),
        (
            RestartOptions,
            b"gracePeriodSeconds: -9223372036854775809",
            "number -9223372036854775809 into Go struct field RestartOptions.gracePeriodSeconds of type int64",
        ),
        (
            StopOptions,
            b'{"gracePeriod": 1.5}',
            "number 1.5 into Go struct field StopOptions.gracePeriod of type int64",
        ),
        (StartOptions, b'{"paused": 1}', "number into Go struct field StartOptions.paused of type bool"),
        (PauseOptions, b'{"dryRun": true}', "bool into Go struct field PauseOptions.dryRun of type []string"),
        (PauseOptions, b'{"dryRun": [1]}', "number into Go struct field PauseOptions.dryRun of type string"),
        (PauseOptions, b"[1]", "array into Go value of type v1.PauseOptions"),
    ],
)
def test_a_wrong_type_is_named_as_kubevirt_names_it(model: type[Options], body: bytes, why: str) -> None:
    with pytest.raises(Refused) as refused:
        read_options(body, model)
    message = f"Can not unmarshal Request body to struct, error: json: cannot unmarshal {why}"
    assert refused.value.status["message"] == message
    assert (refused.value.status["code"], refused.value.status["reason"]) == (400, "BadRequest")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["dryRun", "gracePeriod", "x"]), inner),
)


YAML = st.text(alphabet="{}[]:,-?&*!|>'\"%@` #\n\t~01x_.eabn", max_size=60)
TAGGED = st.builds(
    "gracePeriod: !!{} {}".format, st.sampled_from(["bool", "int", "float", "timestamp", "binary", "set"]), st.text()
)
ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefghi"
)


def reads_or_refuses(body: bytes) -> bool:
    try:
        options = read_options(body, StopOptions)
    except Refused as refusal:
        return refusal.status["code"] == 400 and bool(json.dumps(refusal.status))
    return options.grace_period is None or orjson.dumps(options.grace_period) != b""


@given(
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.integers().map(b"gracePeriod: %d".__mod__)
    | (YAML | TAGGED).map(str.encode)
)
def test_any_body_is_read_or_refused(body: bytes) -> None:
    assert reads_or_refuses(body)


@pytest.mark.parametrize(
    "body",
    [
        b"x: !!bool zz",
        b'x: !!int ""',
        b"x: !!timestamp zz",
        ALIASES,
        b"[" * 25_000,
        b'{"a":' * 10_000,
        b"x: " + b"{" * 25_000,
        b"gracePeriod: 0x" + b"f" * 5000,
        b'{"gracePeriod": ' + b"9" * 5000 + b"}",
        b'{"gracePeriod": NaN}',
    ],
    ids=lambda body: str(body[:30]),
)
def test_what_has_no_meaning_or_would_cost_too_much_to_find_it_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_options(body, StopOptions)
    assert refused.value.status["code"] == 400
