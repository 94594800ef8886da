"""Why an autoscaler's wish is not fulfilled: joined from conditions of many objects, as the cluster writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.strain import strain_of
from virtflow.kube import Object

SET: Object = {"metadata": {"uid": "set"}, "status": {"replicas": 3, "readyReplicas": 2}}
QUOTA: Object = {
    "metadata": {"name": "tenant-a-quota"},
    "status": {"hard": {"pods": "2", "requests.memory": "3Gi"}, "used": {"pods": "2", "requests.memory": "2Gi"}},
}
REFUSED = 'pods "virt-launcher-x" is forbidden: exceeded quota: tenant-a-quota, requested: pods=1'


def condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def autoscaler(*conditions: Object) -> Object:
    return {"status": {"desiredReplicas": 4, "conditions": list(conditions)}}


def instance(*conditions: Object, owner: str = "set") -> Object:
    return {"metadata": {"ownerReferences": [{"uid": owner}]}, "status": {"conditions": list(conditions)}}


WAITING = instance(
    condition("Ready", "False", "PodNotExists", "virt-launcher pod has not yet been scheduled"),
    condition("Synchronized", "False", "FailedCreate", REFUSED),
)
UNSCHEDULED = instance(condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available"))


def test_a_quota_on_pods_is_told_by_an_instance_and_the_quotas_figures() -> None:
    running = instance(condition("Ready", "True", "", ""))
    strain = strain_of(autoscaler(), SET, [running, UNSCHEDULED, WAITING, WAITING], [QUOTA])
    assert (strain.desired, strain.current, strain.ready, strain.is_quota) == (4, 3, 2, True)
    assert strain.reasons == [
        f"2 of its instances, FailedCreate: {REFUSED}",
        "1 of its instances, Unschedulable: 0/3 nodes are available",
        "quota tenant-a-quota: pods 2 of 2, requests.memory 2Gi of 3Gi",
    ]


REFUSALS = [
    "exceeded quota: tenant-a-quota, requested: pods=1",
    "failed quota: tenant-a-quota: must specify requests.memory for: compute",
    "status unknown for quota: tenant-a-quota, resources: pods",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_each_refusal_of_a_quota_is_one(words: str) -> None:
    refused = instance(condition("Synchronized", "False", "FailedCreate", f'pods "x" is forbidden: {words}'))
    assert strain_of(autoscaler(), SET, [refused], []).is_quota


def test_what_else_refuses_is_counted_apart() -> None:
    other = instance(condition("Synchronized", "False", "FailedCreate", "no webhook answers"))
    strain = strain_of(autoscaler(), SET, [other, WAITING, other], [])
    assert strain.reasons == [
        f"1 of its instances, FailedCreate: {REFUSED}",
        "2 of its instances, FailedCreate: no webhook answers",
    ]
    assert strain.refused == 1


@pytest.mark.parametrize(
    ("members", "is_stuck"), [([WAITING], True), ([], False), ([UNSCHEDULED], False), ([WAITING, WAITING], False)]
)
def test_it_is_stuck_when_what_does_not_run_is_refused(members: list[Object], is_stuck: bool) -> None:
    assert strain_of(autoscaler(), SET, members, []).is_stuck == is_stuck


def test_a_quota_on_instances_is_told_by_the_replica_set() -> None:
    status = {**SET["status"], "conditions": [condition("ReplicaFailure", "True", "FailedCreate", REFUSED)]}
    strain = strain_of(autoscaler(), {**SET, "status": status}, [], [QUOTA])
    assert strain.is_quota
    assert not strain.is_stuck, "one of the three is neither ready nor refused"
    assert strain.reasons[0] == f"the replica set, FailedCreate: {REFUSED}"


def test_what_is_no_quota_is_not_called_one() -> None:
    strain = strain_of(autoscaler(), SET, [UNSCHEDULED], [QUOTA])
    assert not strain.is_quota
    assert strain.reasons == ["1 of its instances, Unschedulable: 0/3 nodes are available"]


def test_a_metric_that_is_unknown_and_a_limit_are_told() -> None:
    said = autoscaler(
        condition("ScalingActive", "False", "FailedGetResourceMetric", "no metrics returned"),
        condition("AbleToScale", "True", "ReadyForNewScale", "fine"),
        condition("ScalingLimited", "True", "TooManyReplicas", "more than the maximum"),
    )
    assert strain_of(said, SET, [], []).reasons == [
        "the autoscaler has no figures (<unknown>), FailedGetResourceMetric: no metrics returned",
        "the autoscaler is bound, TooManyReplicas: more than the maximum",
    ]


def test_instances_of_another_set_say_nothing() -> None:
    other = {**WAITING, "metadata": {"ownerReferences": [{"uid": "another"}]}}
    assert strain_of(autoscaler(), SET, [other, {"metadata": {}}], [QUOTA]).reasons == []


@given(
    there=st.tuples(*(st.sampled_from([{}, {"metadata": {}}, {"metadata": {}, "status": {}}]) for _ in range(2))),
    members=st.lists(st.sampled_from([WAITING, UNSCHEDULED, {"metadata": {}}]), max_size=4),
)
def test_half_written_objects_are_no_errors(there: tuple[Object, Object], members: list[Object]) -> None:
    strain = strain_of(*there, members, [{"metadata": {"name": "new"}}])
    assert (strain.desired, strain.current, strain.ready) == (0, 0, 0)


def test_a_quota_that_refuses_is_told_whatever_the_order() -> None:
    for members in ([UNSCHEDULED, WAITING], [WAITING, UNSCHEDULED]):
        assert strain_of(autoscaler(), SET, members, []).is_quota
