from typing import Any

import pytest

from clusters.kubevirt.controller import vm as reconciler
from clusters.kubevirt.controller.run_strategy import open_requests, should_start, should_stop
from clusters.kubevirt.controller.writes import Create, Delete, Patch, Replace, Write
from tests.unit.virt_controller_support import HAS_RUN, NOW, deleting, make_vm, make_vmi
from virtflow.kube import Object

START, STOP = {"action": "Start"}, {"action": "Stop", "uid": "vmi-uid"}
OTHER_STOP = {"action": "Stop", "uid": "another"}


def asked(strategy: str, *requests: Object, **status: Any) -> Object:
    return make_vm(strategy=strategy, runStrategy=strategy, stateChangeRequests=list(requests), **status)


def spec_writes(vm: Object, vmi: Object | None, revisions: list[Object] | None = None) -> list[Write]:
    return reconciler.spec_writes(vm, vmi, revisions or [], NOW)


@pytest.mark.parametrize(
    ("vm", "starts"),
    [
        (asked("Manual"), False),
        (asked("Manual", START), True),
        (asked("Manual", STOP, START), False),
        (asked("RerunOnFailure"), False),
        (asked("RerunOnFailure", START), True),
        (make_vm(strategy="RerunOnFailure", runStrategy="Halted"), True),
        (make_vm(strategy="RerunOnFailure"), True),
        (asked("Once"), True),
        (asked("Always", STOP), True),
        (deleting(asked("Manual", START)), False),
    ],
)
def test_who_is_started(vm: Object, starts: bool) -> None:
    assert should_start(vm, NOW) is starts
    creates = [write for write in spec_writes(vm, None) if isinstance(write, Create)]
    assert any(write.body.get("status", {}).get("virtualMachineRevisionName") for write in creates) is starts


@pytest.mark.parametrize("requests", [[START], [STOP, START], [OTHER_STOP, START]])
def test_a_start_that_is_asked_for_already_is_not_asked_for_again(requests: list[Object]) -> None:
    failed = make_vmi("Failed", phaseTransitionTimestamps=HAS_RUN)
    writes = spec_writes(asked("RerunOnFailure", *requests), failed)
    assert [type(write) for write in writes] == [Delete]


@pytest.mark.parametrize("strategy", ["Always", "Manual", "RerunOnFailure"])
def test_a_stop_is_of_the_instance_it_names(strategy: str) -> None:
    assert should_stop(asked(strategy, STOP), make_vmi("Running"))
    assert not should_stop(asked(strategy, OTHER_STOP), make_vmi("Running"))
    assert not should_stop(asked(strategy, START, STOP), make_vmi("Running"))


def test_a_failed_instance_is_asked_for_again_before_it_goes() -> None:
    vm, failed = asked("RerunOnFailure"), make_vmi("Failed", phaseTransitionTimestamps=HAS_RUN)
    del vm["status"]["stateChangeRequests"]
    request, delete = spec_writes(vm, failed)
    assert isinstance(request, Patch)
    assert request.subresource == "status"
    assert request.patch == [
        {"op": "test", "path": "/status/stateChangeRequests", "value": None},
        {"op": "replace", "path": "/status/stateChangeRequests", "value": [START]},
    ]
    assert isinstance(delete, Delete)
    (again,) = spec_writes(asked("RerunOnFailure", START), failed)
    assert isinstance(again, Delete)
    (ended,) = spec_writes(vm, make_vmi("Succeeded"))
    assert isinstance(ended, Delete)


@pytest.mark.parametrize(
    ("requests", "vmi", "left"),
    [
        ([START], None, [START]),
        ([START], make_vmi("Pending"), []),
        ([START], deleting(make_vmi("Running")), [START]),
        ([START], make_vmi("Failed"), [START]),
        ([STOP, START], make_vmi("Running"), [STOP, START]),
        ([STOP, START], None, [START]),
        ([OTHER_STOP, START], make_vmi("Running"), [START]),
        ([{"action": "Stop"}], make_vmi("Running"), []),
        ([], None, []),
    ],
)
def test_a_request_goes_when_it_has_come_about(
    requests: list[Object], vmi: Object | None, left: list[Object]
) -> None:
    assert open_requests(asked("Manual", *requests), vmi) == left


@pytest.mark.parametrize(("spec", "wanted"), [({"runStrategy": "Halted"}, "Always"), ({"running": False}, True)])
def test_a_halted_vm_that_is_to_start_is_switched_on(spec: Object, wanted: object) -> None:
    vm = asked("Halted", {**START, "data": {"paused": "true"}})
    vm["spec"] = {"template": vm["spec"]["template"], **spec}
    (write,) = spec_writes(vm, None)
    assert isinstance(write, Replace)
    field = next(iter(spec))
    assert write.body["spec"][field] == wanted
    instance = spec_writes(write.body, None)[-1]
    assert isinstance(instance, Create)
    assert instance.body["spec"]["startStrategy"] == "Paused"
    assert "startStrategy" not in vm["spec"]["template"]["spec"]


def test_a_new_strategy_is_told_once_its_start_has_come_about() -> None:
    vm = make_vm(strategy="RerunOnFailure", runStrategy="Halted")
    assert told(vm, None)["runStrategy"] == "Halted"
    assert told(vm, make_vmi())["runStrategy"] == "RerunOnFailure"
    assert "runStrategy" not in told(make_vm(), None)
    assert told(make_vm(strategy="Halted", runStrategy="Always"), None)["runStrategy"] == "Halted"


def told(
    vm: Object, vmi: Object | None, revisions: list[Object] | None = None, failure: Object | None = None
) -> Object:
    (write,) = reconciler.status_writes(vm, vmi, revisions or [], NOW, failure)
    assert isinstance(write, Replace)
    status: Object = write.body["status"]
    return status


def test_an_orphaning_delete_leaves_the_instance_alone() -> None:
    vm = deleting(make_vm())
    vm["metadata"]["finalizers"] = ["kubevirt.io/virtualMachineControllerFinalize", "orphan"]
    vmi = make_vmi("Running", vm)
    (write,) = reconciler.metadata_writes(vm, vmi)
    assert isinstance(write, Patch)
    assert isinstance(write.patch, list)
    assert write.patch[1]["value"] == ["orphan"]
    assert spec_writes(vm, vmi) == []
    assert reconciler.adoption_writes(vm, make_vmi("Running")) == []


def test_an_instance_of_nobody_is_adopted_by_the_vm_of_its_name() -> None:
    vm = make_vm()
    (write,) = reconciler.adoption_writes(vm, make_vmi("Running"))
    assert isinstance(write, Patch)
    assert isinstance(write.patch, list)
    values = {(operation["op"], operation["path"]): operation["value"] for operation in write.patch}
    assert values["test", "/metadata/ownerReferences"] is None
    (owner,) = next(value for (op, _), value in values.items() if op != "test")
    assert owner["uid"] == "vm-uid"
    for other in (None, make_vmi("Running", vm), deleting(make_vmi("Running"))):
        assert reconciler.adoption_writes(vm, other) == []


def started_from(vm: Object) -> tuple[Object, list[Object]]:
    revision = reconciler.new_revision(vm)
    name = revision["metadata"]["name"]
    return make_vmi("Running", vm, virtualMachineRevisionName=name, phaseTransitionTimestamps=HAS_RUN), [revision]


def required(status: Object) -> list[Object]:
    return [each for each in status["conditions"] if each["type"] == "RestartRequired"]


def test_another_template_requires_a_restart_until_it_is_as_before() -> None:
    vmi, revisions = started_from(make_vm())
    vm = make_vm()
    vm["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] = 2
    status = told(vm, vmi, revisions)
    (condition,) = required(status)
    assert condition["status"] == "True"
    assert condition["message"] == "a non-live-updatable field was changed in the template spec"
    later = NOW.replace(year=2030)
    assert reconciler.status_writes({**vm, "status": status}, vmi, revisions, later) == []
    assert required(told({**make_vm(), "status": status}, vmi, revisions)) == []
    assert required(told({**vm, "status": status}, None, revisions)) == []


def test_where_it_may_run_is_passed_on_unless_a_restart_will() -> None:
    vmi, revisions = started_from(make_vm())
    vm = make_vm()
    vm["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "a"}
    (write,) = spec_writes(vm, vmi, revisions)
    assert isinstance(write, Patch)
    assert write.patch == [
        {"op": "test", "path": "/spec/nodeSelector", "value": None},
        {"op": "replace", "path": "/spec/nodeSelector", "value": {"zone": "a"}},
    ]
    assert required(told(vm, vmi, revisions)) == []
    vmi["spec"]["nodeSelector"] = {"zone": "b"}
    (back,) = spec_writes(make_vm(), vmi, revisions)
    assert isinstance(back, Patch)
    assert isinstance(back.patch, list)
    assert back.patch[1] == {"op": "remove", "path": "/spec/nodeSelector"}
    vm["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] = 2
    assert spec_writes(vm, vmi, revisions) == []


def test_a_refused_start_is_told_once_and_forgotten_after() -> None:
    failure = reconciler.failed_sync(None, "exceeded quota", NOW)
    status = told(make_vm(), None, failure=failure)
    assert status["conditions"][-1] == {
        "type": "Failure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "Failure while starting VMI: exceeded quota",
        "lastProbeTime": None,
        "lastTransitionTime": "2026-11-23T06:29:46Z",
    }
    vm, later = {**make_vm(), "status": status}, NOW.replace(year=2030)
    assert reconciler.status_writes(vm, None, [], later, reconciler.failed_sync(None, "exceeded", later)) == []
    assert [each["type"] for each in told(vm, None)["conditions"]] == ["Ready"]
    assert reconciler.failed_sync(make_vmi(), "no", NOW)["reason"] == "FailedDelete"
