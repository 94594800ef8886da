"""What a kube-apiserver that refuses is spared."""

import asyncio
import re
from collections.abc import Mapping

import pytest

from clusters.kubevirt.controller.events import Note, Recorder
from clusters.kubevirt.controller.writes import DRAWS, Create, Writer
from tests.unit.simulated_apiserver import ApiServer, refusal
from tests.unit.simulated_programs import INSTANCES, REPLICA_SETS, fresh, running
from tests.unit.virt_controller_support import NAMESPACE, make_vmirs
from tests.unit.virtual_time import run_in_virtual_time, virtual_now
from virtflow.kube import KubeError, Object, Response
from virtflow.kube.resources import VMIS


def test_a_set_far_over_quota_asks_seldom_and_tells_of_it_in_one_event() -> None:
    run_in_virtual_time(over_quota())


async def over_quota() -> None:
    server = ApiServer(clock=virtual_now)
    server.instance_quota = 10
    await server.add(REPLICA_SETS, fresh(make_vmirs(300)))
    async with running(server):
        await asyncio.sleep(600)
        assert len(server.all(INSTANCES)) == 10
        asked = server.writes[f"POST {INSTANCES}"]
        assert asked < 60
        refusals = [event for event in server.all("events") if event["reason"] == "FailedCreate"]
        assert [event["count"] for event in refusals] == [asked - 10]
        server.instance_quota = None
        await asyncio.sleep(65)
        assert len(server.all(INSTANCES)) == 300


class Picky(ApiServer):
    """Answers creates as it is told to."""

    def __init__(self, answers: Mapping[int, int]) -> None:
        super().__init__()
        self.answers = answers
        self.asked = 0

    async def _create(self, plural: str, body: Object) -> Response:
        self.asked += 1
        if code := self.answers.get(self.asked):
            return refusal(code, "no")
        return await super()._create(plural, body)


@pytest.mark.parametrize(
    ("answers", "asked", "raised"),
    [
        # 1 + 2 + 4 + ..., and the first batch in which one is refused is the last.
        ({1: 403}, 1, 403),
        ({3: 403}, 3, 403),
        ({4: 403}, 7, 403),
        # A name that is taken is drawn again.
        ({1: 409, 5: 409}, 32, None),
        (dict.fromkeys(range(1, DRAWS + 1), 409), 29 + DRAWS, 409),
        ({1: 409, 5: 403}, 8, 403),
        ({}, 30, None),
    ],
)
@pytest.mark.anyio
async def test_nothing_follows_what_was_refused_but_a_lost_race_stops_nobody(
    answers: Mapping[int, int], asked: int, raised: int | None
) -> None:
    server = Picky(answers)
    writer = Writer(server, {}, Recorder(server, "test"))
    instance: Object = {
        "metadata": {"generateName": "a-", "namespace": NAMESPACE},
        "spec": {"domain": {"devices": {}}},
    }
    told = None
    try:
        await writer.perform_together([Create(VMIS, instance) for _ in range(30)])
    except KubeError as error:
        told = error.code
    assert (server.asked, told) == (asked, raised)


@pytest.mark.anyio
async def test_an_event_is_of_what_was_refused_not_of_the_names_in_the_answer() -> None:
    server = ApiServer()
    recorder = Recorder(server, "test")
    about = make_vmirs(1) | {"kind": "VirtualMachineInstanceReplicaSet"}
    about["metadata"]["resourceVersion"] = "1"
    for name in ("a-1", "a-2", "a-3"):
        recorder.record(Note(about, "Warning", "FailedCreate", "no: {error}"), error=f'"{name}" is forbidden')
        recorder.record(Note(about, "Normal", "SuccessfulCreate", "made {name}"), name=name)
    task = asyncio.create_task(recorder.run())
    await server.until(lambda: len(server.all("events")) == 4 and all_counted(server) == [1, 1, 1, 3])
    task.cancel()
    failed = next(event for event in server.all("events") if event["type"] == "Warning")
    assert re.search("a-3", failed["message"])


def all_counted(server: ApiServer) -> list[int]:
    return sorted(event["count"] for event in server.all("events"))
