from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.kubevirt.guests.machine import QUEUE_LIMIT, Machine, Meter, Slot, usage_figure

MS = timedelta(milliseconds=1)
milliseconds = st.integers(0, 500).map(lambda n: n * MS)
costs = st.integers(1, 2000).map(lambda n: n * MS)
arrivals = st.lists(st.tuples(milliseconds, costs), max_size=80)
"""Pause before a request, and its cost."""


def play(machine: Machine, requests: list[tuple[timedelta, timedelta]]) -> list[tuple[timedelta, Slot]]:
    now, served = timedelta(), []
    for pause, cost in requests:
        now += pause
        slot = machine.admit(now, cost)
        assert slot is not None
        served.append((now, slot))
    return served


@given(cores=st.integers(1, 4), requests=arrivals)
def test_first_come_is_first_served_and_never_before_it_came(
    cores: int, requests: list[tuple[timedelta, timedelta]]
) -> None:
    served = play(Machine(cores), requests)
    starts = [slot.start for _, slot in served]
    assert starts == sorted(starts)
    assert all(slot.start >= arrived for arrived, slot in served)


@given(cores=st.integers(1, 4), requests=arrivals)
def test_all_admitted_work_is_done_once(cores: int, requests: list[tuple[timedelta, timedelta]]) -> None:
    machine = Machine(cores)
    served = play(machine, requests)
    work = sum((cost for _, cost in requests), timedelta())
    end = max((slot.end for _, slot in served), default=timedelta())
    assert machine.used(end) == work
    assert machine.used(end + timedelta(hours=1)) == work


@given(cores=st.integers(1, 4), requests=arrivals)
def test_no_core_idles_while_a_request_waits(cores: int, requests: list[tuple[timedelta, timedelta]]) -> None:
    served = play(Machine(cores), requests)
    for arrived, slot in served:
        if slot.start > arrived:
            before = slot.start - MS / 1000
            busy = sum(1 for _, other in served if other.start <= before < other.end)
            assert busy == cores


@given(cores=st.integers(1, 4), requests=arrivals, window=st.integers(1, 700).map(lambda n: n * MS))
def test_readings_never_exceed_the_cores_and_add_up_to_the_work(
    cores: int, requests: list[tuple[timedelta, timedelta]], window: timedelta
) -> None:
    machine = Machine(cores)
    now, reading_at, used, readings = timedelta(), window, timedelta(), []
    meter, last = Meter(machine, now), now

    def read_until(limit: timedelta) -> None:
        nonlocal reading_at, used, last
        while reading_at <= limit:
            before = used
            used = machine.used(reading_at)
            busy = meter.read(reading_at)
            assert busy == (used - before) / (reading_at - last)
            readings.append(busy)
            last, reading_at = reading_at, reading_at + window

    ends = [now]
    for pause, cost in requests:
        now += pause
        read_until(now)
        slot = machine.admit(now, cost)
        assert slot is not None
        ends.append(slot.end)
    read_until(max(ends) + window)
    assert all(0 <= busy <= cores for busy in readings)
    assert used == sum((cost for _, cost in requests), timedelta())


def test_work_across_the_edge_of_a_window_counts_in_both_by_its_share() -> None:
    machine = Machine(1)
    meter = Meter(machine, timedelta())
    machine.admit(1900 * MS, 400 * MS)
    assert meter.read(2000 * MS) == pytest.approx(0.05)
    assert meter.read(4000 * MS) == pytest.approx(0.15)
    assert meter.read(6000 * MS) == 0


@given(cores=st.integers(1, 4))
def test_latency_rises_under_overload_and_stays_flat_below(cores: int) -> None:
    def waits(pause: timedelta) -> list[timedelta]:
        served = play(Machine(cores), [(pause, 50 * MS)] * 60)
        return [slot.start - arrived for arrived, slot in served]

    assert set(waits(50 * MS / cores)) <= {timedelta(), MS / 1000}
    overloaded = waits(25 * MS / cores)
    assert overloaded[-1] > overloaded[30] > overloaded[10]


def test_a_full_queue_refuses_until_somebody_gets_a_core() -> None:
    machine, now = Machine(2), timedelta()
    admitted = [machine.admit(now, 50 * MS) for _ in range(2 + QUEUE_LIMIT)]
    assert None not in admitted
    assert machine.admit(now, 50 * MS) is None
    assert machine.waiting(now) == QUEUE_LIMIT
    assert machine.admit(50 * MS, 50 * MS) is not None


@pytest.mark.parametrize(
    ("busy", "figure"), [(0.0, "10m"), (0.004, "10m"), (0.4471, "450m"), (0.4549, "450m"), (2.0, "2000m")]
)
def test_figures_are_coarse_and_never_zero(busy: float, figure: str) -> None:
    assert usage_figure(busy) == figure
