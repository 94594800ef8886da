"""A VirtualMachineInstanceReplicaSet's life on a running cluster.

3, to 5, to 2; 1, to 100, to 1; members lost, let go and taken in; paused; refused; deleted with its members or
without them.
"""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.audit_support import succeeded
from tests.integration.support import PATIENCE, Tenant, make_template, tenant_on
from virtflow.kube import Informer, Object, Resource
from virtflow.kube.resources import EVENTS, PODS, VMIRS, VMIS

pytestmark = pytest.mark.anyio
NAME = "test-vmirs"
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")


@pytest.fixture
async def tenant(kubeconfig: Path) -> AsyncIterator[Tenant]:
    async with tenant_on(kubeconfig) as tenant:
        yield tenant


def uids(objects: list[Object]) -> set[str]:
    return {obj["metadata"]["uid"] for obj in objects}


def has(tenant: Tenant, count: int) -> bool:
    """Whether there are just so many instances, ready, each with its pod, and the set says so."""
    instances, pods = tenant.all(VMIS), tenant.all(PODS)
    status = (tenant.get(VMIRS, NAME) or {}).get("status", {})
    return (
        len(instances) == len(pods) == count
        and {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods} == uids(instances)
        and all(vmi["status"]["phase"] == "Running" for vmi in instances)
        and status.get("replicas") == status.get("readyReplicas") == count
    )


def is_satisfied(tenant: Tenant, name: str) -> bool:
    """Whether it has as many ready members as it wants, and nothing else to say."""
    vmirs = tenant.get(VMIRS, name) or {}
    status = vmirs.get("status", {})
    wanted = vmirs.get("spec", {}).get("replicas")
    own = [vmi for vmi in tenant.all(VMIS) if controller(vmi) == vmirs.get("metadata", {}).get("uid")]
    counts = (status.get("replicas", 0), status.get("readyReplicas", 0), len(own))
    return counts == (wanted, wanted, wanted) and "conditions" not in status


def controller(vmi: Object) -> str | None:
    owners = vmi["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), None)


def conditions(tenant: Tenant) -> list[Object]:
    found: list[Object] = (tenant.get(VMIRS, NAME) or {}).get("status", {}).get("conditions", [])
    return found


async def add_set(tenant: Tenant, replicas: int, name: str = NAME, app: str = "scale") -> None:
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": make_template(app)}
    vmirs = {"metadata": {"name": name, "namespace": tenant.namespace}, "spec": spec}
    await tenant.kube.create(VMIRS, vmirs, tenant.namespace)


async def create_set(tenant: Tenant, replicas: int) -> None:
    await add_set(tenant, replicas)
    await tenant.until(lambda: has(tenant, replicas))


async def scale(tenant: Tenant, replicas: int, within: timedelta = PATIENCE) -> None:
    patch = {"spec": {"replicas": replicas}}
    await tenant.kube.patch(VMIRS, NAME, patch, tenant.namespace, subresource="scale")
    await tenant.until(lambda: has(tenant, replicas), within)


async def relabel(tenant: Tenant, vmi: Object, app: str) -> None:
    patch = {"metadata": {"labels": {"app": app}}}
    await tenant.kube.patch(VMIS, vmi["metadata"]["name"], patch, tenant.namespace)


async def set_paused(tenant: Tenant, paused: bool) -> None:
    await tenant.kube.patch(VMIRS, NAME, {"spec": {"paused": paused}}, tenant.namespace)


async def reasons(tenant: Tenant) -> Counter[str]:
    """Of the events that tell of the set, how often each was told."""
    told: Counter[str] = Counter()
    for event in await tenant.kube.list(EVENTS, tenant.namespace):
        if event["involvedObject"]["kind"] == VMIRS.kind:
            assert event["source"]["component"] == "virtualmachinereplicaset-controller"
            told[event["reason"]] += event["count"]
    return told


async def test_it_follows_its_scale_out_and_in(tenant: Tenant) -> None:
    await create_set(tenant, 3)
    vmirs, first = tenant.get(VMIRS, NAME), uids(tenant.all(VMIS))
    assert vmirs is not None
    assert vmirs["status"]["labelSelector"] == "app=scale"
    for vmi in tenant.all(VMIS):
        assert vmi["metadata"]["name"].startswith(NAME)
        assert vmi["metadata"]["ownerReferences"][0]["uid"] == vmirs["metadata"]["uid"]
    await scale(tenant, 5)
    assert first < uids(tenant.all(VMIS))
    of_five = uids(tenant.all(VMIS))
    await scale(tenant, 2)
    assert uids(tenant.all(VMIS)) < of_five


async def test_a_lost_member_is_replaced(tenant: Tenant) -> None:
    await create_set(tenant, 2)
    before = uids(tenant.all(VMIS))
    lost = tenant.all(VMIS)[0]["metadata"]
    await tenant.kube.delete(VMIS, lost["name"], tenant.namespace)
    await tenant.until(lambda: lost["uid"] not in uids(tenant.all(VMIS)) and has(tenant, 2))
    assert len(before & uids(tenant.all(VMIS))) == 1


async def test_a_member_without_its_pod_is_replaced(tenant: Tenant) -> None:
    await create_set(tenant, 1)
    lost = tenant.all(VMIS)[0]["metadata"]
    await tenant.kube.delete(PODS, tenant.all(PODS)[0]["metadata"]["name"], tenant.namespace)
    await tenant.until(lambda: lost["uid"] not in uids(tenant.all(VMIS)) and has(tenant, 1))
    assert tenant.all(VMIS)[0]["metadata"]["name"] != lost["name"]


async def test_from_1_to_100_to_1_nobody_is_made_twice_or_left_over(tenant: Tenant, audit_log: Path) -> None:
    await create_set(tenant, 1)
    await scale(tenant, 100, 5 * PATIENCE)
    await scale(tenant, 1, 5 * PATIENCE)
    writes = list(succeeded(audit_log, tenant.namespace))
    made = [each.uid for each in writes if (each.verb, each.resource) == ("create", VMIS.plural)]
    ended = {each.name for each in writes if (each.verb, each.resource) == ("delete", VMIS.plural)}
    pods = Counter(each.owner for each in writes if (each.verb, each.resource) == ("create", PODS.plural))
    assert len(made) == 100
    assert len(ended) == 99
    assert pods == dict.fromkeys(made, 1)


async def test_who_is_not_selected_any_more_is_let_go_and_replaced_and_taken_back_when_it_is(tenant: Tenant) -> None:
    await create_set(tenant, 2)
    gone, stays = tenant.all(VMIS)
    await relabel(tenant, gone, "other")
    await tenant.until(lambda: len(tenant.all(VMIS)) == 3 and is_satisfied(tenant, NAME))
    released = tenant.get(VMIS, gone["metadata"]["name"])
    assert released is not None
    assert "ownerReferences" not in released["metadata"]
    assert released["status"]["phase"] == "Running"
    await relabel(tenant, gone, "scale")
    await tenant.until(lambda: has(tenant, 2))
    assert {controller(vmi) for vmi in tenant.all(VMIS)} == {controller(stays)}


async def test_members_outlive_an_orphaning_delete_and_belong_to_the_next_set(tenant: Tenant) -> None:
    await create_set(tenant, 2)
    before = uids(tenant.all(VMIS))
    await tenant.kube.delete(VMIRS, NAME, tenant.namespace, propagation="Orphan")
    await tenant.until(lambda: tenant.get(VMIRS, NAME) is None)
    await tenant.until(lambda: [controller(vmi) for vmi in tenant.all(VMIS)] == [None, None])
    await add_set(tenant, 3, "next")
    await tenant.until(lambda: is_satisfied(tenant, "next"))
    assert before < uids(tenant.all(VMIS))
    assert len(tenant.all(VMIS)) == 3
    adopted = next(vmi for vmi in tenant.all(VMIS) if vmi["metadata"]["uid"] in before)
    (owner,) = adopted["metadata"]["ownerReferences"]
    assert (owner["name"], owner["controller"], owner["blockOwnerDeletion"]) == ("next", True, True)


async def test_two_sets_that_select_the_same_ones_share_them(tenant: Tenant, audit_log: Path) -> None:
    await create_set(tenant, 4)
    await tenant.kube.delete(VMIRS, NAME, tenant.namespace, propagation="Orphan")
    await tenant.until(lambda: tenant.get(VMIRS, NAME) is None)
    for name in ("one", "two"):
        await add_set(tenant, 2, name)
    await tenant.until(lambda: is_satisfied(tenant, "one") and is_satisfied(tenant, "two"))
    await tenant.until(lambda: len(tenant.all(VMIS)) == 4)
    names = Counter(vmi["metadata"]["ownerReferences"][0]["name"] for vmi in tenant.all(VMIS))
    assert names == {"one": 2, "two": 2}
    adopted: Counter[str] = Counter()
    for write in succeeded(audit_log, tenant.namespace):
        if write.resource == VMIS.plural and write.verb == "patch" and "/metadata/ownerReferences" in write.paths:
            adopted[write.name] += 1
    # Nobody is taken from the other one.
    assert set(adopted.values()) == {1}


async def test_a_paused_set_makes_and_ends_nobody(tenant: Tenant) -> None:
    await create_set(tenant, 1)
    (member,) = tenant.all(VMIS)
    await set_paused(tenant, True)
    await tenant.until(lambda: conditions(tenant) != [])
    (told,) = conditions(tenant)
    assert told | {"lastTransitionTime": ""} == {
        "type": "ReplicaPaused",
        "status": "True",
        "reason": "Paused",
        "message": "Controller got paused",
        "lastProbeTime": None,
        "lastTransitionTime": "",
    }
    await tenant.kube.patch(VMIRS, NAME, {"spec": {"replicas": 2}}, tenant.namespace, subresource="scale")
    # What was asked later of the same queue is done: so this would have been.
    await add_set(tenant, 1, "later", "later")
    await tenant.until(lambda: is_satisfied(tenant, "later"))
    assert [vmi for vmi in tenant.all(VMIS) if vmi["metadata"]["labels"]["app"] == "scale"] != []
    assert len(tenant.all(VMIS)) == 2
    await tenant.kube.delete(VMIS, member["metadata"]["name"], tenant.namespace)
    await tenant.until(lambda: len(tenant.all(VMIS)) == 1)
    await set_paused(tenant, False)
    await tenant.until(lambda: is_satisfied(tenant, NAME))
    assert len(tenant.all(VMIS)) == 3
    assert (await reasons(tenant)).keys() >= {"SuccessfulPaused", "SuccessfulResumed", "SuccessfulCreate"}


async def test_what_a_quota_refuses_is_told_until_there_is_room(tenant: Tenant) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/virtualmachineinstances.kubevirt.io": "1"}}}
    await tenant.kube.create(QUOTAS, quota, tenant.namespace)
    quotas = Informer(tenant.kube, QUOTAS, namespace=tenant.namespace)
    async with quotas.running():
        await quotas.wait_for(tenant.namespace, "few", lambda quota: bool(quota and quota["status"].get("hard")))
    await add_set(tenant, 3)
    await tenant.until(lambda: conditions(tenant) != [])
    (told,) = conditions(tenant)
    assert (told["type"], told["status"], told["reason"]) == ("ReplicaFailure", "True", "FailedCreate")
    assert "exceeded quota: few, requested: count/virtualmachineinstances.kubevirt.io=1" in told["message"]
    await tenant.until(lambda: len(tenant.all(VMIS)) == 1)
    await tenant.kube.delete(QUOTAS, "few", tenant.namespace)
    await tenant.until(lambda: is_satisfied(tenant, NAME))
    assert len(tenant.all(VMIS)) == 3
    assert (await reasons(tenant))["FailedCreate"] >= 1


async def test_a_deleted_set_leaves_nothing(tenant: Tenant) -> None:
    await create_set(tenant, 2)
    await tenant.kube.delete(VMIRS, NAME, tenant.namespace)
    await tenant.until(lambda: not any(map(tenant.all, (VMIRS, VMIS, PODS))))
    assert tenant.get(VMIRS, NAME) is None
