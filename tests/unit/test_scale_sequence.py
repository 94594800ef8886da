"""The autoscaler's decisions, held against its own algorithm."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from virtflow.errors import VirtflowError
from virtflow.sequence.audit import Owner, Status, Write
from virtflow.sequence.scale import (
    AUTOSCALER,
    VIRT_CONTROLLER,
    current_utilization,
    disagreement,
    observe_scale_decisions,
    target_utilization,
)
from workflows.models import ReplicaSetRef

TARGET = ReplicaSetRef("ns", "vmirs", "hpa")
METRIC = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
SPEC = {"minReplicas": 1, "maxReplicas": 10, "metrics": [{"type": "Resource", "resource": METRIC}]}
START = datetime(2026, 1, 1, tzinfo=UTC)


@given(
    measured=st.integers(1, 30),
    silent=st.integers(0, 10),
    utilization=st.floats(1, 400),
    target=st.integers(10, 100),
    maximum=st.integers(1, 60),
)
def test_what_the_algorithm_decides_is_never_a_disagreement(
    measured: int, silent: int, utilization: float, target: int, maximum: int
) -> None:
    """Replays the HPA's documented algorithm: silent pods count as idle when growing, as on target when shrinking."""
    before = measured + silent
    ratio = utilization / target
    assume(abs(ratio - 1) > 0.1)
    if ratio > 1:
        adjusted = utilization * measured / before / target
        assume(adjusted > 1.1)
        wanted = math.ceil(adjusted * before)
        after = min(wanted, max(before + 4, before * 2), maximum)
        assume(after > before)
    else:
        adjusted = (utilization * measured + target * silent) / before / target
        assume(adjusted < 0.9)
        after = max(math.ceil(adjusted * before), 1)
        assume(after < before <= maximum)
    assert disagreement(before, after, int(utilization), target, (maximum, 1)) == ""


@given(before=st.integers(1, 20), utilization=st.integers(1, 69))
def test_scaling_out_below_the_target_is_named(before: int, utilization: int) -> None:
    assert "within the tolerance" in disagreement(before, before + 1, utilization, 70, (100, 1))


@given(before=st.integers(2, 20), utilization=st.integers(64, 300))
def test_scaling_in_above_the_target_is_named(before: int, utilization: int) -> None:
    assert "not below the tolerance" in disagreement(before, before - 1, utilization, 70, (100, 1))


def test_leaps_limits_and_silence_are_named() -> None:
    assert "more than the 5" in disagreement(1, 6, 900, 70, (10, 1))
    assert "more than the 3" in disagreement(1, 4, 198, 70, (10, 1))
    assert "less than the 3" in disagreement(4, 2, 50, 70, (10, 1))
    assert "outside 1 to 10" in disagreement(8, 11, 200, 70, (10, 1))
    assert "no utilization" in disagreement(1, 2, None, 70, (10, 1))


def write(seconds: float, user: str, verb: str, what: str, name: str, **answer: Any) -> Write:
    resource, _, subresource = what.partition("/")
    at = START + timedelta(seconds=seconds)
    return Write(at, user, None, verb, resource, subresource, "ns", name, 200, **answer)


def scale(seconds: float, replicas: int) -> Write:
    return write(seconds, AUTOSCALER, "update", "virtualmachineinstancereplicasets/scale", "vmirs", replicas=replicas)


def metrics(utilization: int | None) -> list[dict[str, Any]]:
    memory = {"type": "Resource", "resource": {"name": "memory", "current": {"averageUtilization": 1}}}
    current = {} if utilization is None else {"averageUtilization": utilization}
    return [{"type": "External"}, memory, {"type": "Resource", "resource": {"name": "cpu", "current": current}}]


def status(seconds: float, current: int, desired: int, utilization: int) -> Write:
    said = Status(currentReplicas=current, desiredReplicas=desired, currentMetrics=metrics(utilization))
    return write(seconds, AUTOSCALER, "update", "horizontalpodautoscalers/status", "hpa", status=said)


def member(seconds: float, verb: str, name: str, owner: str = "vmirs") -> Write:
    return write(seconds, VIRT_CONTROLLER, verb, "virtualmachineinstances", name, owner=Owner("u", owner, True))


def test_decisions_have_their_reason_and_their_effect() -> None:
    writes = [
        scale(0, 3),
        status(0.1, 1, 3, 198),
        member(0.2, "create", "a"),
        member(0.3, "create", "b"),
        scale(20, 1),
        status(20.1, 3, 1, 5),
        member(20.2, "delete", "a"),
        member(20.3, "delete", "b"),
    ]
    out, back = observe_scale_decisions(writes, TARGET, SPEC)
    assert out.at == START
    assert (out.before, out.after, out.utilization, out.followed, out.disagreement) == (1, 3, 198, True, "")
    assert (back.at - out.at, back.before, back.after, back.followed, back.disagreement) == (
        timedelta(seconds=20),
        3,
        1,
        True,
        "",
    )


def test_instances_of_others_and_repeated_deletes_are_no_effect() -> None:
    writes = [
        scale(0, 3),
        status(0.1, 1, 3, 198),
        member(0.2, "create", "a"),
        member(0.3, "create", "b", owner="other"),
        scale(20, 1),
        status(20.1, 3, 1, 5),
        member(20.2, "delete", "a"),
        member(20.3, "delete", "a"),
    ]
    assert [decision.followed for decision in observe_scale_decisions(writes, TARGET, SPEC)] == [False, False]


def test_a_later_rounds_reason_is_not_taken_for_this_ones() -> None:
    first, second = observe_scale_decisions([scale(0, 3), scale(1, 3), status(1.1, 1, 3, 198)], TARGET, SPEC)
    assert (first.utilization, second.utilization) == (None, 198)


def test_a_decision_without_a_reported_reason_disagrees() -> None:
    [decision] = observe_scale_decisions([scale(0, 3), status(1, 3, 3, 70)][:1], TARGET, SPEC)
    assert decision.utilization is None
    assert decision.disagreement


@given(st.none() | st.integers(0, 500))
def test_the_utilization_is_the_cpus_whatever_stands_beside_it(utilization: int | None) -> None:
    assert current_utilization(metrics(utilization)) == utilization


@pytest.mark.parametrize("silence", [None, [], metrics(None)[:2]])
def test_an_autoscaler_without_figures_has_no_utilization(silence: list[dict[str, Any]] | None) -> None:
    assert current_utilization(silence) is None


def test_an_autoscaler_of_something_else_is_named() -> None:
    assert target_utilization(SPEC) == 70
    for silence in ([], [{"type": "External"}]):
        with pytest.raises(VirtflowError, match="of vmirs has no metric of CPU"):
            target_utilization({"metrics": silence, "scaleTargetRef": {"name": "vmirs"}})
