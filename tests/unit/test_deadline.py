"""Waits that are taken up after a worker's death: they have the rest of their time, and say what did not come."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import deadline
from activities.autoscaling import IN_BAND_FOR, Autoscaling
from activities.causes import LOOK_LIMIT
from activities.deadline import MOMENT, time_left
from activities.evidence import Evidence
from activities.load import Load
from activities.virtual_machines import VirtualMachines
from clusters.endpoints import Endpoints
from tests.unit.simulated_apiserver import ApiServer
from virtflow.kube import Informer, Object
from virtflow.kube.resources import HPAS, RESOURCE_QUOTAS, VMIRS, VMIS, VMS
from virtflow.sequence.records import Records
from workflows import options
from workflows.failures import FailureType, type_of
from workflows.fault_models import Instance, RecoveryWait
from workflows.models import (
    LoadOrder,
    LoadRun,
    ReplicaSetOrder,
    ReplicaSetRef,
    ReplicasWait,
    SettleWait,
    VirtualMachineRef,
    VirtualMachineWait,
)
from workflows.quota_models import ReasonWait, StuckWait, TriesWait

pytestmark = pytest.mark.anyio

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
LIMIT = 60
MACHINE, TARGET = VirtualMachineRef("ns", "vm", "u1"), ReplicaSetRef("ns", "set", "hpa")
LOAD_RUN = LoadRun("run/load", LoadOrder(TARGET, 1, MINUTE, MINUTE))
NAMED: Object = {"metadata": {"name": "set"}, "spec": {"replicas": 1}}


def attempt(number: int, began: timedelta) -> ActivityEnvironment:
    """A try of an activity that was first asked for so long ago."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=number, scheduled_time=datetime.now(UTC) - began)
    return environment


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """In which nothing comes about, for waits that end after an instant once their time is over."""

    async def applied(*_: object) -> Object:
        return {}

    monkeypatch.setattr(deadline, "MOMENT", timedelta(milliseconds=50))
    monkeypatch.setattr(ApiServer, "apply", applied)
    return ApiServer()


def machines(server: ApiServer) -> VirtualMachines:
    return VirtualMachines(server, Informer(server, VMS), Informer(server, VMIS))


def autoscaling(server: ApiServer) -> Autoscaling:
    return Autoscaling(server, *(Informer(server, kind) for kind in (VMIRS, HPAS, VMIS, RESOURCE_QUOTAS)))


async def test_the_first_try_has_all_of_it_also_if_it_had_to_queue() -> None:
    assert attempt(1, HOUR).run(time_left, MINUTE) == MINUTE


async def test_a_later_try_has_the_rest_but_a_moment_at_least() -> None:
    left = attempt(2, HOUR).run(time_left, HOUR + 10 * MINUTE)
    assert MOMENT < left <= 10 * MINUTE
    assert attempt(2, HOUR).run(time_left, 10 * MINUTE) == MOMENT


def test_who_falls_silent_at_the_very_end_leaves_time_to_say_what_did_not_come() -> None:
    whole = options.waiting(timedelta())["schedule_to_close_timeout"]
    assert whole is not None
    assert whole > options.HEARTBEAT_TIMEOUT + MOMENT + LOOK_LIMIT
    assert MOMENT > IN_BAND_FOR


@pytest.mark.parametrize(
    ("wait_of", "order"),
    [
        (lambda server: machines(server).await_running, VirtualMachineWait(MACHINE, 30 * MINUTE)),
        (lambda server: machines(server).await_reason, ReasonWait(MACHINE, "words", 30 * MINUTE)),
        (
            lambda server: machines(server).await_recovery,
            RecoveryWait(MACHINE, Instance("vmi-1", "node-1"), 30 * MINUTE),
        ),
        (lambda server: autoscaling(server).await_replicas, ReplicasWait(TARGET, 1, 30 * MINUTE)),
        (lambda server: autoscaling(server).await_settled, SettleWait(TARGET, 1, 30 * MINUTE)),
        (lambda server: autoscaling(server).await_stuck, StuckWait(TARGET, 30 * MINUTE)),
        (
            lambda server: autoscaling(server).create_replica_set,
            ReplicaSetOrder("ns", str(NAMED), str(NAMED), {}, 30 * MINUTE),
        ),
        (lambda _: Load(cast(Endpoints, None), Path("nowhere")).await_begin, LOAD_RUN),
    ],
)
async def test_a_second_try_of_a_wait_whose_time_is_over_says_what_did_not_come(
    server: ApiServer, wait_of: Callable[[ApiServer], Callable[[Any], Any]], order: object
) -> None:
    with anyio.fail_after(LIMIT), pytest.raises(ApplicationError) as failed:
        await attempt(2, HOUR).run(wait_of(server), order)
    assert type_of(failed.value) is FailureType.TIMED_OUT


async def test_a_second_look_into_the_log_takes_no_longer_either(server: ApiServer, tmp_path: Path) -> None:
    records = Records(tmp_path / "audit.log", tmp_path / "access.log")
    with anyio.fail_after(LIMIT):
        seen = await attempt(2, HOUR).run(
            Evidence(server, records).observe_tries, TriesWait("ns", 1, MINUTE, 30 * MINUTE)
        )
    assert seen == []
    records.close()
