"""Nodes and launcher pods that cannot be made to fail: what is refused for good, and what needs no mending."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import anyio
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.faults import Faults
from clusters.faults import PLAYED_BY_KWOK
from tests.unit.simulated_apiserver import ApiServer, refusal
from virtflow.kube import Informer, Object, Response
from workflows.failures import FailureType, type_of
from workflows.fault_models import Instance, LauncherKill, NodeFault
from workflows.models import VirtualMachineRef

pytestmark = pytest.mark.anyio

LIMIT = 20
REAL = NodeFault("node-1", "failed by 1")
"""As nodes are that kwok does not play, none of the server's has its annotation."""


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


def played(server: ApiServer) -> Object:
    node = deepcopy(server.objects["nodes", "", REAL.node])
    node["metadata"]["annotations"][PLAYED_BY_KWOK] = "fake"
    return node


async def refused(act: Callable[[Any], Any], order: object) -> ApplicationError:
    with anyio.fail_after(LIMIT), pytest.raises(ApplicationError) as failed:
        await ActivityEnvironment().run(act, order)
    assert type_of(failed.value) is FailureType.REFUSED
    return failed.value


async def test_a_real_node_cannot_fail_and_need_not_be_mended(server: ApiServer) -> None:
    faults, before = Faults(server), server.find("nodes", REAL.node)
    assert "is a real one" in str(await refused(faults.fail_node, REAL))
    with anyio.fail_after(LIMIT):
        await ActivityEnvironment().run(faults.mend_node, REAL)
    assert server.find("nodes", REAL.node) == before


async def test_what_is_not_there_cannot_fail(server: ApiServer) -> None:
    faults, nobody = Faults(server), NodeFault("node-99", "failed by 1")
    assert "There is no node node-99. There are: node-1, " in str(await refused(faults.fail_node, nobody))
    with anyio.fail_after(LIMIT):
        await ActivityEnvironment().run(faults.mend_node, nobody)
    kill = LauncherKill(VirtualMachineRef("ns", "vm", "u1"), Instance("vmi-1", "node-1"))
    assert "ns/vm has no launcher pod" in str(await refused(faults.kill_launcher, kill))


async def test_who_may_not_mark_a_node_is_told_at_once(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.add("nodes", played(server))

    async def forbidden(*_: object) -> Response:
        return refusal(403, "nodes is forbidden: User cannot patch it")

    monkeypatch.setattr(server, "_patch", forbidden)
    assert "User cannot patch it" in str(await refused(Faults(server).fail_node, REAL))


async def test_a_node_that_is_deleted_cannot_fail(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deleted(_informer: Informer, _namespace: str, _name: str, _until: object) -> None:
        return None

    await server.add("nodes", played(server))
    monkeypatch.setattr(Informer, "wait_for", deleted)
    assert "Node node-1 is gone" in str(await refused(Faults(server).fail_node, REAL))
