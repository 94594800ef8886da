import json

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


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        options = read_options(body, StopOptions)
    except Refused as refusal:
        options = StopOptions()
        code = refusal.status["code"]
    else:
        code = 0
    assert code in (0, 400)
    assert options.grace_period is None or isinstance(options.grace_period, int)
