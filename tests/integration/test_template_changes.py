"""A template that changes while its VM runs: a restart is required, or it reaches the instance as it is."""

import pytest

from tests.integration.machines import NAME, ask, condition_of, edit, instance, is_running, started, told
from tests.integration.support import Tenant, uid_of
from virtflow.kube import Object
from virtflow.kube.resources import VMS

pytestmark = pytest.mark.anyio


def restart_required(tenant: Tenant) -> Object:
    return condition_of(tenant.get(VMS, NAME) or {}, "RestartRequired")


async def test_a_change_of_the_guest_requires_a_restart_which_brings_it(tenant: Tenant) -> None:
    first = await started(tenant)
    await edit(tenant, {"template": {"spec": {"domain": {"cpu": {"cores": 2}}}}})
    await tenant.until(lambda: bool(restart_required(tenant)))
    assert restart_required(tenant) == {
        "status": "True",
        "reason": None,
        "message": "a non-live-updatable field was changed in the template spec",
    }
    assert (told(tenant)["desiredGeneration"], told(tenant)["observedGeneration"]) == (2, 1)
    assert uid_of(instance(tenant)) == uid_of(first)
    await ask(tenant, {"action": "Stop", "uid": uid_of(first)}, {"action": "Start"})
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)) and not restart_required(tenant))
    assert instance(tenant)["spec"]["domain"]["cpu"]["cores"] == 2
    assert told(tenant)["observedGeneration"] == 2


async def test_a_change_taken_back_requires_none(tenant: Tenant) -> None:
    first = await started(tenant)
    await edit(tenant, {"template": {"spec": {"domain": {"cpu": {"cores": 2}}}}})
    await tenant.until(lambda: bool(restart_required(tenant)))
    await edit(tenant, {"template": {"spec": {"domain": {"cpu": {"cores": 1}}}}})
    await tenant.until(lambda: not restart_required(tenant) and told(tenant)["observedGeneration"] == 3)
    assert uid_of(instance(tenant)) == uid_of(first)


async def test_where_the_vm_may_run_reaches_the_instance_without_a_restart(tenant: Tenant) -> None:
    first = await started(tenant)
    await edit(tenant, {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}})
    await tenant.until(lambda: instance(tenant)["spec"].get("nodeSelector") == {"kubernetes.io/os": "linux"})
    await edit(tenant, {"template": {"spec": {"nodeSelector": None}}})
    await tenant.until(lambda: "nodeSelector" not in instance(tenant)["spec"])
    assert not restart_required(tenant)
    assert uid_of(instance(tenant)) == uid_of(first)
    assert is_running(tenant)
