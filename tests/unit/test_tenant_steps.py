"""Steps about tenants and quotas, with a session that answers at once: what they ask, what they let pass."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Session
from tests.e2e.phrases import TenantFile
from tests.e2e.report import Report
from tests.e2e.steps import quotas, tenants
from tests.e2e.steps.world import World
from virtflow.kube import Object
from workflows.models import (
    GatewayAnswer,
    ObservedArrow,
    ScenarioOrder,
    VirtualMachineCreated,
    VirtualMachineRef,
)
from workflows.quota_models import Strain, Tries
from workflows.tenant_models import Tenant, TenantOrder

START = datetime(2026, 11, 23, 10, tzinfo=UTC)
TENANT = Tenant("tenant-a", "tenant-a-1", ["tenant-a-user"])


class Answering(Session):
    """Gives one answer to all that it is asked."""

    def __init__(self, answer: object = TENANT) -> None:
        self._order = ScenarioOrder("r", "f", "s", {"virtflow.io/scenario": "12345678"}, timedelta(minutes=1))
        self._answer = answer
        self.asked: list[Any] = []

    def ask(self, _update: object, order: object) -> Any:
        self.asked.append(order)
        return self._answer


def report() -> Report:
    return Report("r", None)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tenants, "TENANTS", tmp_path)
    (tmp_path / "bank.yaml").write_text("namespace: bank")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_tenants_of_one_file_have_namespaces_of_their_own() -> None:
    session = Answering(answer=[])
    tenants.many_tenants_of_a_file(session, report(), World(), 2, TenantFile("bank.yaml"))
    orders: list[TenantOrder] = session.asked[0]
    assert [order.namespace for order in orders] == ["bank-tenant-001-12345678", "bank-tenant-002-12345678"]


@pytest.mark.usefixtures("folder")
def test_a_tenant_that_is_changed_keeps_its_namespace() -> None:
    session, world = Answering(), World(tenants={"tenant-a": TENANT})
    tenants.change_tenant(session, report(), world, "tenant-a", TenantFile("bank.yaml"))
    assert session.asked[0].namespace == TENANT.namespace


WAITING = World(tenants={"tenant-a": TENANT}, machines={"vm": VirtualMachineRef(TENANT.namespace, "vm", "u")})
REFUSED = {"type": "Synchronized", "status": "False", "reason": "FailedCreate"}


@pytest.mark.parametrize(
    ("status", "passes"),
    [
        ({"printableStatus": "Starting", "conditions": [REFUSED]}, True),
        ({"printableStatus": "Starting", "conditions": [{"type": "Failure", "status": "True"}]}, True),
        ({"printableStatus": "Starting", "conditions": [{"type": "Ready", "status": "False"}]}, False),
        ({"printableStatus": "Running", "conditions": [REFUSED]}, False),
        ({"printableStatus": "Starting", "ready": True, "conditions": [REFUSED]}, False),
    ],
)
def test_a_machine_that_only_does_not_run_yet_is_not_one_that_does_not(status: Object, passes: bool) -> None:
    session = Answering(GatewayAnswer(200, {"status": status}, [], "id"))
    if passes:
        quotas.machine_does_not_run(session, report(), WAITING, "vm")
    else:
        with pytest.raises(AssertionError):
            quotas.machine_does_not_run(session, report(), WAITING, "vm")


def moments(*seconds: float) -> list[datetime]:
    return [START + timedelta(seconds=each) for each in seconds]


DOUBLING = moments(*(0.01 * (2**turn - 1) for turn in range(11)))


@pytest.mark.parametrize(
    ("tries", "words"),
    [
        ([Tries("x", DOUBLING)], ""),
        ([], "1 wait, and the audit log holds tries of 0"),
        ([Tries("x", DOUBLING[:5])], "too short to be judged"),
        ([Tries("x", moments(*(each / 4 for each in range(40))))], "pauses that double allow at most"),
        ([Tries("x", moments(*range(8)))], "its pauses do not grow"),
    ],
)
def test_only_pauses_that_grow_are_backing_off(tries: list[Tries], words: str) -> None:
    session = Answering(tries)
    if not words:
        quotas.tries_are_backed_off(session, report(), WAITING, "tenant-a")
        return
    with pytest.raises(AssertionError, match=words):
        quotas.tries_are_backed_off(session, report(), WAITING, "tenant-a")


def created(seconds: float) -> VirtualMachineCreated:
    arrow = ObservedArrow(11, "Running", "virt-controller", observed=True, after=timedelta(seconds=seconds))
    return VirtualMachineCreated(GatewayAnswer(201, {}, [], "id"), arrows=[arrow])


@pytest.mark.parametrize(
    ("before", "after", "passes"), [(0.3, 9, True), (0.3, 11, False), (3, 29, True), (3, 31, False)]
)
def test_who_waits_for_another_is_slowed(before: float, after: float, passes: bool) -> None:
    world = World(running={"tenant-a": created(before)}, created=created(after))
    if passes:
        quotas.takes_not_much_longer(report(), world, 10, "tenant-a")
    else:
        with pytest.raises(AssertionError, match="It took"):
            quotas.takes_not_much_longer(report(), world, 10, "tenant-a")


@pytest.mark.parametrize(("ready", "passes"), [(0, False), (1, False), (2, True), (3, False)])
def test_what_the_quota_lets_run_must_run(ready: int, passes: bool) -> None:
    world = World(strain=Strain(4, 4, ready, 0, [], is_quota=True))
    if passes:
        quotas.wants_more(report(), world, 2)
    else:
        with pytest.raises(AssertionError, match="are ready"):
            quotas.wants_more(report(), world, 2)
