"""How the activities that try a tenant's access behave in a worker."""

import asyncio
import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities import access, heartbeat
from activities.access import Access
from activities.doors import DoorReply
from activities.tokens import Tokens
from tests.unit.log_support import RotatingWriter
from virtflow.access.requests import DoorHttp
from workflows.access_models import Door, DoorRequest
from workflows.tenant_models import Tenant

TENANT = Tenant("tenant-a", "tenant-a-1", ["tenant-a-user"])


@pytest.mark.parametrize("rotations", range(3))
def test_a_record_of_a_moment_ago_is_found_over_rotations_and_behind_half_a_line(
    tmp_path: Path, rotations: int
) -> None:
    def record(request_id: str) -> bytes:
        return json.dumps({"time": "t", "request_id": request_id, "verdict": "denied"}).encode() + b"\n"

    with closing(RotatingWriter(tmp_path / "access.log")) as log:
        log.write(record("first") + record("one")[:-20] + record("one") + record("other"))
        for _ in range(rotations):
            log.rotate()
        assert access.find_record(log.path, "one") == json.loads(record("one"))
        assert access.find_record(log.path, "on") is None


class SlowDoors:
    """Answer once they have heard a heartbeat."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    async def ask(self, _door: Door, _request: DoorHttp, token: str, _request_id: str) -> DoorReply:
        await asyncio.wait_for(self.heard.wait(), 20)
        return DoorReply(403, {"reason": "Forbidden", "message": token})


@pytest.mark.anyio
async def test_a_request_at_a_slow_door_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    async def create_token(*_: object, **__: object) -> str:
        return "the-token"

    for pause in ("HEARTBEAT_EVERY", "SELDOM"):
        monkeypatch.setattr(heartbeat, pause, getattr(heartbeat, pause) / 1000)
    doors, kube = SlowDoors(), cast(Any, SimpleNamespace(create_token=create_token))
    endpoints = SimpleNamespace(audit_log=Path("audit.log"), access_log=Path("access.log"))
    activities = Access(kube, cast(Any, doors), Tokens(kube), cast(Any, endpoints))
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda *_: doors.heard.set()
    request = DoorRequest(TENANT, Door.GATEWAY, "get", "secrets", TENANT.namespace)
    answer = await environment.run(activities.request_at_door, request)
    assert (answer.code, answer.reason) == (403, "Forbidden")
