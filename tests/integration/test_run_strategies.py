"""What each run strategy makes of a guest that ends, of what virtctl asks for, and of another strategy."""

import anyio
import pytest

from tests.integration.machines import (
    NAME,
    ask,
    condition_of,
    create_vm,
    edit,
    end_guest,
    event_saying,
    instance,
    is_ended,
    is_running,
    is_stopped,
    pod,
    set_strategy,
    started,
    told,
)
from tests.integration.support import PATIENCE, Tenant, make_template, uid_of
from virtflow.kube import Object
from virtflow.kube.resources import VMIS, VMS

pytestmark = pytest.mark.anyio

HANDLER = {"Impersonate-User": "system:serviceaccount:kubevirt:kubevirt-handler"}


@pytest.mark.parametrize(
    ("strategy", "how"),
    [("Always", "poweroff"), ("Always", "crash"), ("RerunOnFailure", "crash")],
)
async def test_a_guest_that_ended_is_started_again(tenant: Tenant, guests_url: str, strategy: str, how: str) -> None:
    first = await started(tenant, strategy)
    await end_guest(tenant, guests_url, how)
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)))
    await tenant.until(lambda: "stateChangeRequests" not in told(tenant))
    assert "startFailure" not in told(tenant)


@pytest.mark.parametrize(
    ("strategy", "how", "phase", "of_pod"),
    [
        ("Manual", "crash", "Failed", "Failed"),
        ("Manual", "poweroff", "Succeeded", "Succeeded"),
        ("Once", "crash", "Failed", "Failed"),
        ("Once", "poweroff", "Succeeded", "Succeeded"),
    ],
)
async def test_a_guest_that_ended_stays_so(
    tenant: Tenant, guests_url: str, strategy: str, how: str, phase: str, of_pod: str
) -> None:
    first = await started(tenant, strategy)
    await end_guest(tenant, guests_url, how)
    await tenant.until(lambda: is_ended(tenant, phase))
    assert uid_of(instance(tenant)) == uid_of(first)
    assert pod(tenant)["status"]["phase"] == of_pod
    await tenant.until(lambda: condition_of(instance(tenant), "Ready").get("status") == "False")
    # Another change that the controller answers: by then it would have started it again.
    await edit(tenant, {"template": {"metadata": {"labels": {"seen": "yes"}}}})
    await tenant.until(lambda: told(tenant)["desiredGeneration"] == 2)
    assert uid_of(instance(tenant)) == uid_of(first)


async def test_after_a_poweroff_rerun_on_failure_leaves_nothing(tenant: Tenant, guests_url: str) -> None:
    await started(tenant, "RerunOnFailure")
    await end_guest(tenant, guests_url, "poweroff")
    await tenant.until(lambda: is_stopped(tenant))
    event = await event_saying(tenant.kube, tenant.namespace, "The VirtualMachineInstance was shut down.")
    assert (event["involvedObject"]["kind"], event["type"], event["reason"]) == (VMIS.kind, "Normal", "Stopped")
    await ask(tenant, {"action": "Start"})
    await tenant.until(lambda: is_running(tenant))


async def test_a_crash_is_told(tenant: Tenant, guests_url: str) -> None:
    await started(tenant, "Once")
    await end_guest(tenant, guests_url, "crash")
    await tenant.until(lambda: is_ended(tenant, "Failed"))
    event = await event_saying(tenant.kube, tenant.namespace, "The VirtualMachineInstance crashed.")
    assert (event["involvedObject"]["kind"], event["type"], event["reason"]) == (VMIS.kind, "Warning", "Stopped")


@pytest.mark.parametrize("strategy", ["Manual", "Always", "RerunOnFailure"])
async def test_a_restart_is_a_stop_of_this_instance_and_a_start(tenant: Tenant, strategy: str) -> None:
    first = await started(tenant, strategy)
    await ask(tenant, {"action": "Stop", "uid": uid_of(first)}, {"action": "Start"})
    await tenant.until(lambda: is_running(tenant, unlike=uid_of(first)))
    await tenant.until(lambda: "stateChangeRequests" not in told(tenant))


@pytest.mark.parametrize("strategy", ["Manual", "RerunOnFailure"])
async def test_a_vm_is_stopped_and_started_as_asked(tenant: Tenant, strategy: str) -> None:
    first = await started(tenant, strategy)
    await ask(tenant, {"action": "Stop", "uid": uid_of(first)})
    await tenant.until(lambda: is_stopped(tenant) and "stateChangeRequests" not in told(tenant))
    await ask(tenant, {"action": "Start"})
    await tenant.until(lambda: is_running(tenant) and "stateChangeRequests" not in told(tenant))


async def test_a_stop_of_another_instance_is_dropped(tenant: Tenant) -> None:
    first = await started(tenant, "Manual")
    await ask(tenant, {"action": "Stop", "uid": "another"})
    await tenant.until(lambda: "stateChangeRequests" not in told(tenant))
    assert uid_of(instance(tenant)) == uid_of(first)
    assert is_running(tenant)


async def test_a_halted_vm_that_is_asked_to_start_paused_is_always_from_then_on(tenant: Tenant) -> None:
    await create_vm(tenant, "Halted")
    await tenant.until(lambda: told(tenant).get("printableStatus") == "Stopped")
    await ask(tenant, {"action": "Start", "data": {"paused": "true"}})
    await tenant.until(lambda: told(tenant).get("printableStatus") == "Paused")
    vm = tenant.get(VMS, NAME)
    assert vm is not None
    assert vm["spec"]["runStrategy"] == "Always"
    assert condition_of(vm, "Paused")["reason"] == "PausedByUser"


async def test_a_strategy_may_change_while_the_vm_runs(tenant: Tenant) -> None:
    first = await started(tenant)
    for strategy in ("Manual", "RerunOnFailure", "Once", "Always"):
        await set_strategy(tenant, strategy)
        await tenant.until(lambda wanted=strategy: told(tenant).get("runStrategy") == wanted)  # type: ignore[misc]
        assert is_running(tenant)
    assert uid_of(instance(tenant)) == uid_of(first)
    await set_strategy(tenant, "Halted")
    await tenant.until(lambda: is_stopped(tenant))
    await set_strategy(tenant, "RerunOnFailure")
    await tenant.until(lambda: is_running(tenant))


async def test_the_deprecated_field_starts_and_stops_too(tenant: Tenant) -> None:
    spec = {"running": True, "template": make_template("test")}
    await tenant.kube.create(VMS, {"metadata": {"name": NAME}, "spec": spec}, tenant.namespace)
    await tenant.until(lambda: is_running(tenant))
    assert told(tenant)["runStrategy"] == "Always"
    await edit(tenant, {"running": False})
    await tenant.until(lambda: is_stopped(tenant))


async def test_a_paused_instance_is_told_everywhere_until_it_is_not(tenant: Tenant) -> None:
    first = await started(tenant)
    ready = first["status"]["conditions"]
    paused = {"type": "Paused", "status": "True", "reason": "PausedByUser", "message": "VMI was paused by user"}
    await set_conditions(tenant, [*ready, paused])
    await tenant.until(lambda: told(tenant).get("printableStatus") == "Paused" and "ready" not in told(tenant))
    vm, vmi = tenant.get(VMS, NAME), instance(tenant)
    assert vm is not None
    assert condition_of(vm, "Paused")["message"] == "VMI was paused by user"
    gate = {"status": "False", "reason": "Paused", "message": "the virtual machine is paused"}
    assert condition_of(pod(tenant), "kubevirt.io/virtual-machine-unpaused") == gate
    for obj in (vm, vmi, pod(tenant)):
        assert condition_of(obj, "Ready")["reason"] == "ReadinessGatesNotReady"
    await set_conditions(tenant, [each for each in vmi["status"]["conditions"] if each["type"] != "Paused"])
    await tenant.until(lambda: is_running(tenant))
    assert condition_of(pod(tenant), "kubevirt.io/virtual-machine-unpaused")["reason"] == "NotPaused"
    assert condition_of(instance(tenant), "Ready")["status"] == "True"


async def set_conditions(tenant: Tenant, conditions: list[Object]) -> None:
    """As virt-handler would: by the whole object, and again if somebody else was quicker."""
    with anyio.fail_after(PATIENCE.total_seconds()):
        while True:
            vmi = await tenant.kube.get(VMIS, NAME, tenant.namespace)
            vmi["status"]["conditions"] = conditions
            answer = await tenant.kube.send("PUT", VMIS.path(tenant.namespace, NAME), body=vmi, headers=HANDLER)
            if answer.code != 409:
                break
    assert answer.code == 200, answer.body
