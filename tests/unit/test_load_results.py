import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.results import Ending, LoadPlan, LoadProgress, LoadResult, RunLog, latencies_of

PLAN = LoadPlan("http://127.0.0.1:1/", users=3, ramp=timedelta(seconds=1.5), hold=timedelta(minutes=1))

BEGIN = '{"waited": 0.25, "restarted": false}'

histograms = st.dictionaries(st.integers(0, 5000), st.integers(1, 30), max_size=8)
failures = st.dictionaries(st.sampled_from(["HTTP 503", "TimeoutError", "é"]), st.integers(1, 20))


def line(answered: Mapping[int, int], failed: Mapping[str, int]) -> str:
    return json.dumps(
        {
            "time": 1762732800.5,
            "elapsed": 1.25,
            "length": 1.0,
            "users": 3,
            "answered_ms": answered,
            "failures": failed,
        },
        ensure_ascii=False,
    )


def window(answered: Mapping[int, int], failed: Mapping[str, int]) -> LoadProgress:
    return LoadProgress(
        time=datetime(2025, 11, 10, 0, 0, 0, 500_000, UTC),
        elapsed=timedelta(seconds=1.25),
        length=timedelta(seconds=1),
        users=3,
        answered_ms=answered,
        failures=failed,
    )


@given(windows=st.lists(st.tuples(histograms, failures), max_size=4), data=st.data())
def test_a_log_cut_anywhere_reads_as_its_whole_lines_and_then_the_rest(
    windows: list[tuple[dict[int, int], dict[str, int]]], data: st.DataObject
) -> None:
    lines = [BEGIN, *(line(*one) for one in windows), '{"ending": "stopped", "started": 3}']
    written = "".join(text + "\n" for text in lines).encode()
    cut = data.draw(st.integers(0, len(written)))
    expected = [window(*one) for one in windows]
    with TemporaryDirectory() as folder:
        path = Path(folder, "progress.jsonl")
        log = RunLog(path)
        path.write_bytes(written[:cut])
        log.read()
        assert log.windows == expected[: max(0, written[:cut].count(b"\n") - 1)]
        assert log.ending is (Ending.STOPPED if cut == len(written) else None)
        path.write_bytes(written)
        log.read()
        log.read()
    assert log.windows == expected
    assert (log.ending, log.started) == (Ending.STOPPED, 3)


@given(windows=st.lists(st.tuples(histograms, failures), max_size=3), cut=st.integers(0))
def test_nothing_of_an_earlier_start_counts(windows: list[tuple[dict[int, int], dict[str, int]]], cut: int) -> None:
    """Whatever of it the reader has seen by the time of the new one."""
    first = [BEGIN, *(line(*one) for one in windows)]
    second = ['{"waited": 7.5, "restarted": true}', line({4: 2}, {})]
    with TemporaryDirectory() as folder:
        path = Path(folder, "progress.jsonl")
        log = RunLog(path)
        path.write_text("".join(text + "\n" for text in first[: cut % (len(first) + 1)]))
        log.read()
        path.write_text("".join(text + "\n" for text in first + second))
        log.read()
    assert log.windows == [window({4: 2}, {})]
    assert (log.waited, log.restarted, log.finished) == (timedelta(seconds=7.5), True, False)


@pytest.mark.parametrize(
    ("last", "finished"),
    [
        ('{"ending": "planned", "started": 1}', True),
        ('{"ending": "stopped", "started": 0}', True),
        ('{"ending": "withdrawn", "started": 1}', False),
        ('{"error": "too big"}', True),
    ],
)
def test_a_withdrawn_run_is_not_finished(tmp_path: Path, last: str, finished: bool) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text(f"{BEGIN}\n{last}\n")
    log = RunLog(path)
    log.read()
    assert log.finished is finished


def test_a_log_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "progress.jsonl")
    log.read()
    assert (log.windows, log.ending, log.waited) == ([], None, None)


def test_a_whole_line_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    path.write_text("half a window\n")
    with pytest.raises(ValueError, match="Expecting value"):
        RunLog(path).read()


@given(st.lists(st.tuples(histograms, failures), min_size=1, max_size=4))
def test_percentiles_count_a_failure_as_slower_than_any_answer(
    windows: list[tuple[dict[int, int], dict[str, int]]],
) -> None:
    times: list[float] = []
    for answered, failed in windows:
        times += [duration for duration, number in answered.items() for _ in range(number)]
        times += [math.inf] * sum(failed.values())
    found = latencies_of(window(*one) for one in windows)
    assert (found.n, found.failed) == (len(times), times.count(math.inf))
    for percent, value in ((50, found.p50), (95, found.p95), (99, found.p99)):
        rank = math.ceil(len(times) * percent / 100)
        expected = sorted(times)[rank - 1] if times else math.inf
        assert value == (None if expected == math.inf else timedelta(milliseconds=expected))


def test_a_result_adds_up_its_windows() -> None:
    windows = (window({10: 3}, {"HTTP 503": 1}), window({20: 1}, {"HTTP 503": 2, "TimeoutError": 1}))
    result = LoadResult(PLAN, windows, 1, stopped=False, resumed=False, restarted=False, waited=timedelta())
    assert result.requests == 8
    assert result.failures == {"HTTP 503": 3, "TimeoutError": 1}
    assert result.never_started == 2
    assert (result.latencies.p50, result.latencies.p95) == (timedelta(milliseconds=20), None)
    assert windows[0].rps == 4
    assert windows[0].latencies.failed == 1


def test_a_plan_survives_its_file() -> None:
    assert LoadPlan.from_json(PLAN.to_json()) == PLAN


@pytest.mark.parametrize("wrong", [{"users": 0}, {"hold": timedelta(-1)}, {"rate": 0.0}])
def test_an_impossible_plan_is_refused(wrong: dict[str, object]) -> None:
    usual: dict[str, object] = {"url": "http://127.0.0.1:1/", "users": 1, "ramp": timedelta(), "hold": timedelta()}
    with pytest.raises(ValueError, match="must be above 0"):
        LoadPlan(**{**usual, **wrong})  # type: ignore[arg-type]
