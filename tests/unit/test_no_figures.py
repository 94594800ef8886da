"""Which of the reasons of an autoscaler's `<unknown>` it is, from objects as the cluster writes them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.no_figures import FIRST_FIGURES, has_no_figures, why_no_figures
from virtflow.kube import Object

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
REQUEST = {"requests": {"cpu": "500m"}}
NO_METRICS = "the HPA was unable to compute the replica count: no metrics returned from resource metrics API"
CPU = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 70}}}


def autoscaler(
    kind: str = "ScalingActive", reason: str = "FailedGetResourceMetric", metrics: object = None
) -> Object:
    condition = {"type": kind, "status": "False", "reason": reason, "message": NO_METRICS}
    return {"status": {"conditions": [condition], "currentMetrics": metrics}}


def pod(name: str, age: timedelta = timedelta(minutes=10), **containers: Object) -> Object:
    return {
        "metadata": {
            "name": name,
            "labels": {"app": "scale"},
            "creationTimestamp": (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "status": {"phase": "Running"},
        "spec": {
            "containers": [
                {"name": container, "resources": resources}
                for container, resources in (containers or {"compute": REQUEST}).items()
            ]
        },
    }


def figures(*names: str) -> list[Object]:
    return [{"metadata": {"name": name}} for name in names]


def why(
    selected: list[Object], of: list[Object] | str, selector: str = "app=scale", others: tuple[Object, ...] = ()
) -> str:
    return why_no_figures(autoscaler(), selector, selected, [*selected, *others], of, NOW)


def test_a_selector_that_matches_nothing_is_told_beside_what_there_is() -> None:
    assert why([], []) == "the selector app=scale matches no pod, and there is none in the namespace"
    other = pod("virt-launcher-x")
    other["metadata"]["labels"] = {"kubevirt.io": "virt-launcher", "app": "other"}
    assert why([], [], others=(other,)) == (
        "the selector app=scale matches no pod; 1 are in the namespace, virt-launcher-x with the labels app=other, "
        "kubevirt.io=virt-launcher"
    )


def test_a_container_without_a_request_is_named() -> None:
    told = why([pod("a"), pod("b", compute=REQUEST, sidecar={})], figures("a", "b"))
    assert "there is no request: container sidecar of pod b. Give the template" in told
    several = why([pod(str(number), compute={}) for number in range(5)], figures())
    assert "container compute of pod 0, container compute of pod 1, container compute of pod 2 and 2 more" in several


def test_containers_that_end_before_the_others_begin_need_no_request() -> None:
    one = pod("a")
    one["spec"]["initContainers"] = [{"name": "once"}]
    assert "CPU request" not in why([one], figures("a"))
    one["spec"]["initContainers"].append({"name": "always", "restartPolicy": "Always"})
    assert "container always of pod a" in why([one], figures("a"))
    one["spec"]["resources"] = REQUEST
    assert "CPU request" not in why([one], figures("a")), "the pod has one for all of them"


def test_a_silent_metrics_server_is_told_in_its_words() -> None:
    assert why([pod("a")], "no endpoints available") == (
        "metrics-server gives no figures: no endpoints available. `virtflow logs metrics-server` may say why"
    )


def test_new_pods_are_told_from_those_whose_figures_never_come() -> None:
    new, old = timedelta(seconds=12), FIRST_FIGURES + timedelta(seconds=10)
    assert why([pod("a"), pod("b", new)], figures("a")) == (
        "1 of 2 pods (b) are too new for figures: 12 s old at most, and the first take up to 90 s"
    )
    told = why([pod("a", old), pod("b", new)], [])
    assert told.startswith(
        "metrics-server answers, and has no figures of 2 of 2 pods (a, b), which are up to 100 s old"
    )


def test_pods_that_do_not_run_are_told_before_those_that_are_new() -> None:
    pending = {**pod("a"), "status": {"phase": "Pending"}}
    told = why([pending, pod("b", timedelta(seconds=12))], [])
    assert told == "1 of 2 pods do not run, and have no figures therefore: a is Pending"


def test_where_all_is_there_its_own_words_are_told() -> None:
    assert why([pod("a")], figures("a")) == (
        "the figures are there by now, and it has not taken them up yet. It says FailedGetResourceMetric: "
        f"{NO_METRICS}"
    )


@pytest.mark.parametrize(
    ("kind", "reason", "selector", "words"),
    [
        ("AbleToScale", "FailedGetScale", "app=scale", "it does not find what it is to scale: the HPA"),
        ("ScalingActive", "ScalingDisabled", "app=scale", "it is switched off"),
        ("ScalingActive", "InvalidSelector", "", "the replica set has no selector in its status"),
    ],
)
def test_what_it_is_to_scale_comes_first(kind: str, reason: str, selector: str, words: str) -> None:
    assert why_no_figures(autoscaler(kind, reason), selector, [], [], []).startswith(words)


def test_figures_of_before_are_none() -> None:
    assert has_no_figures({"status": {}})
    assert has_no_figures(autoscaler(metrics=[CPU])), "it says that it gets none any more"
    assert not has_no_figures({}), "there is no autoscaler"
    assert not has_no_figures({"status": {"currentMetrics": [CPU]}})
    assert not has_no_figures(autoscaler("AbleToScale", "BackoffDownscale", [CPU])), "it sees, and may not act"


pods = st.lists(
    st.sampled_from([pod("a"), pod("b", compute={}), pod("c", timedelta(seconds=1)), pod("d", compute=REQUEST, e={})])
)


@given(
    pods, pods, st.one_of(st.text(), st.lists(st.sampled_from(figures("a", "b", "c")))), st.sampled_from(["", "a=b"])
)
def test_there_is_always_an_answer_of_one_line(
    selected: list[Object], others: list[Object], of: list[Object] | str, selector: str
) -> None:
    told = why_no_figures(autoscaler(), selector, selected, others, of, NOW)
    assert told
    assert isinstance(of, str) or "\n" not in told
