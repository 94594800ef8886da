"""virt-handler's endpoint over real TLS: virt-api alone gets in; and what pausing writes."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from clusters.kubevirt.api.refusals import Refused
from clusters.kubevirt.api.subresources.nodes import HandlerAccess, Nodes
from clusters.kubevirt.handler import Handler, pause, unpause, write_change
from clusters.kubevirt.handler_server import NodeUnreachableError, create_app, handler_server
from clusters.kubevirt.install import HANDLER_CLIENT_NAME, HANDLER_NAME
from clusters.local import pki
from clusters.local.pki import Pair
from tests.unit.simulated_apiserver import ApiServer
from tests.unit.virt_controller_support import NOW, TIME, make_vmi
from virtflow.kube import Key, KubeError, Object

READY: Object = {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": TIME}
PAUSED: Object = {
    "type": "Paused",
    "status": "True",
    "reason": "PausedByUser",
    "message": "VMI was paused by user",
    "lastProbeTime": TIME,
    "lastTransitionTime": TIME,
}


def running(**status: Any) -> Object:
    return make_vmi("Running", nodeName="node-1", conditions=[READY], **status)


def test_a_guest_is_paused_once_and_goes_on_once() -> None:
    vmi = running()
    paused = pause(vmi, NOW)
    assert paused is not None
    assert paused["status"]["conditions"] == [READY, PAUSED]
    assert pause(paused, NOW) is None
    assert unpause(paused, NOW) == vmi
    assert unpause(vmi, NOW) is None


class Kube:
    """Holds one instance; the first writes are refused with these codes."""

    def __init__(self, vmi: Object | None, refusals: list[int]) -> None:
        self.vmi = vmi
        self.refusals = refusals

    async def replace(self, _: object, new: Object) -> Object:
        if self.refusals:
            raise KubeError(self.refusals.pop(0), {}, "PUT")
        self.vmi = new
        return new

    async def get(self, *_: object) -> Object:
        if self.vmi is None:
            raise KubeError(404, {}, "GET")
        return self.vmi


async def pause_on(kube: Kube, nodes: tuple[str, ...] = ("node-1",)) -> bool:
    return await write_change(kube, ("tenant", "test-vm"), pause, nodes.__contains__)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_change_is_made_to_what_is_there_now() -> None:
    kube = Kube(running(), [409, 409])
    assert await pause_on(kube)
    assert kube.vmi is not None
    assert kube.vmi["status"]["conditions"][-1]["type"] == "Paused"


@pytest.mark.anyio
async def test_what_is_gone_is_not_changed() -> None:
    assert not await pause_on(Kube(None, []))
    assert not await pause_on(Kube(running(), [404]))


@pytest.mark.anyio
@pytest.mark.parametrize("refusals", [[403], [409] * 9])
async def test_a_change_that_cannot_be_written_is_an_error(refusals: list[int]) -> None:
    kube = Kube(running(), refusals)
    with pytest.raises(KubeError):
        await pause_on(kube)
    assert kube.vmi is not None
    assert kube.vmi["status"]["conditions"] == [READY]


@pytest.mark.anyio
async def test_a_guest_of_a_node_that_does_not_answer_cannot_be_paused() -> None:
    kube = Kube(running(), [])
    with pytest.raises(NodeUnreachableError, match="node-1"):
        await pause_on(kube, ("node-2",))
    assert kube.vmi is not None
    assert kube.vmi["status"]["conditions"] == [READY]


@pytest.mark.anyio
async def test_it_speaks_for_nodes_that_are_ready() -> None:
    server = ApiServer()
    handler = Handler(server)
    task = asyncio.create_task(handler.run())
    async with asyncio.timeout(10):
        while not handler.speaks_for("node-1"):  # noqa: ASYNC110 - nobody tells of a full cache
            await asyncio.sleep(0)
        assert not handler.speaks_for("node-9")
        await server.fail_node("node-1")
        while handler.speaks_for("node-1"):  # noqa: ASYNC110
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Actions:
    def __init__(self) -> None:
        self.asked: list[Key] = []

    async def pause(self, key: Key) -> bool:
        self.asked.append(key)
        if key[1] == "broken":
            raise KubeError(403, {"message": "no"}, "PUT")
        if key[1] == "unreachable":
            raise NodeUnreachableError("node-1 is not Ready")
        return key[1] != "gone"


@asynccontextmanager
async def served(actions: Actions, pair: Pair, ca: Path) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app({"pause": actions.pause})
        server = handler_server(app, 0, pair.cert, pair.key, ca)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture
def kubevirt_ca(tmp_path: Path) -> pki.Authority:
    return pki.authority(tmp_path, "kubevirt-ca")


@pytest.fixture
def handler_pair(tmp_path: Path, kubevirt_ca: pki.Authority) -> Pair:
    return pki.issue(kubevirt_ca, tmp_path, "virt-handler", HANDLER_NAME, names=("127.0.0.1",))


@pytest.mark.anyio
async def test_virt_api_reaches_it_with_its_own_certificate(
    tmp_path: Path, kubevirt_ca: pki.Authority, handler_pair: Pair
) -> None:
    client = pki.issue(kubevirt_ca, tmp_path, "client", HANDLER_CLIENT_NAME)
    actions, ca = Actions(), kubevirt_ca.pair.cert
    async with (
        served(actions, handler_pair, ca) as url,
        Nodes.connect(HandlerAccess(url, ca, client.cert, client.key)) as nodes,
    ):
        await nodes.put("tenant", "test-vm", "pause")
        codes = {
            "gone": "404 (404 Not Found)",
            "broken": "500 (500 Internal Server Error)",
            "unreachable": "503 (503 Service Unavailable)",
        }
        for name, code in codes.items():
            with pytest.raises(Refused, match="unexpected return code") as refused:
                await nodes.put("tenant", name, "pause")
            assert refused.value.status["message"] == f"Internal error occurred: unexpected return code {code}"
    assert actions.asked == [("tenant", name) for name in ("test-vm", *codes)]
    with pytest.raises(Refused, match='Put "https://'):
        async with Nodes.connect(HandlerAccess(url, ca, client.cert, client.key)) as nodes:
            await nodes.put("tenant", "test-vm", "pause")


@pytest.mark.anyio
async def test_another_name_or_another_authority_does_not_get_in(
    tmp_path: Path, kubevirt_ca: pki.Authority, handler_pair: Pair
) -> None:
    stranger = pki.authority(tmp_path, "clients-ca")
    pairs = [
        pki.issue(kubevirt_ca, tmp_path, "other-name", "somebody"),
        pki.issue(stranger, tmp_path, "other-ca", HANDLER_CLIENT_NAME),
        None,
    ]
    actions = Actions()
    async with served(actions, handler_pair, kubevirt_ca.pair.cert) as url:
        for pair in pairs:
            tls = ssl.create_default_context(cafile=kubevirt_ca.pair.cert)
            if pair is not None:
                tls.load_cert_chain(pair.cert, pair.key)
            async with httpx.AsyncClient(verify=tls) as http:
                try:
                    code = (await http.put(f"{url}/v1/namespaces/a/virtualmachineinstances/b/pause")).status_code
                except httpx.TransportError:
                    code = 0
            assert code == (403 if pair is pairs[0] else 0)
    assert actions.asked == []


def test_it_keeps_idle_connections_longer_than_virt_api_does(handler_pair: Pair) -> None:
    server = handler_server(create_app({}), 0, handler_pair.cert, handler_pair.key, handler_pair.cert)
    assert server.config.timeout_keep_alive > 15
