"""virt-api as a process: it serves TLS on 127.0.0.1, believes nobody but the front proxy, and ends in order."""

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from clusters.local import pki
from clusters.local.kubeconfig import kubeconfig_of_certificate

START = "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachines/b/start"
CONSOLE = "/apis/subresources.kubevirt.io/v1/namespaces/a/virtualmachineinstances/b/console"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
USER = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}


async def serving(process: Process) -> None:
    """Return once the process says that it listens."""
    assert process.stderr is not None
    said = ""
    async for chunk in TextReceiveStream(process.stderr):
        said += chunk
        if "running on" in said:
            return
    raise AssertionError(f"virt-api ended before it served:\n{said}")


@asynccontextmanager
async def virt_api(folder: Path) -> AsyncIterator[tuple[Process, str]]:
    """The process and its URL. It has an authority for itself and one for the front proxy, and no kube-apiserver."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ca, front = pki.authority(folder, "ca"), pki.authority(folder, "front-proxy-ca")
    pair = pki.issue(ca, folder, "virt-api", "virt-api", names=("127.0.0.1",))
    pki.issue(front, folder, "aggregator", "aggregator")
    pki.issue(front, folder, "other-name", "somebody")
    kubeconfig_of_certificate(folder / "kubeconfig", "https://127.0.0.1:1", ca.pair.cert, pair)
    options = {
        "kubeconfig": folder / "kubeconfig",
        "port": port,
        "tls-cert": pair.cert,
        "tls-key": pair.key,
        "front-proxy-ca": front.pair.cert,
        "front-proxy-name": "aggregator",
        "handler-url": "https://127.0.0.1:1",
        "handler-ca": ca.pair.cert,
        "handler-cert": pair.cert,
        "handler-key": pair.key,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "clusters.kubevirt", "api", *arguments]
    with anyio.fail_after(60):
        async with await anyio.open_process(command, stderr=subprocess.PIPE) as process:
            await serving(process)
            yield process, f"https://127.0.0.1:{port}"


def client(folder: Path, certificate: str | None = None) -> httpx.AsyncClient:
    tls = ssl.create_default_context(cafile=folder / "ca.crt")
    if certificate is not None:
        tls.load_cert_chain(folder / f"{certificate}.crt", folder / f"{certificate}.key")
    return httpx.AsyncClient(verify=tls, timeout=30)


@pytest.mark.anyio
async def test_it_serves_tls_and_exits_with_0_on_sigterm(tmp_path: Path) -> None:
    # The connection stays open: an idle one must not hold up the end.
    async with virt_api(tmp_path) as (process, url), client(tmp_path) as http:
        answer = await http.get(f"{url}/healthz")
        process.send_signal(signal.SIGTERM)
        code = await process.wait()
    assert (answer.status_code, code) == (200, 0)


@pytest.mark.anyio
async def test_a_certificate_decides_whether_headers_are_believed(tmp_path: Path) -> None:
    async with virt_api(tmp_path) as (process, url):
        answers = {}
        for certificate in (None, "other-name", "aggregator"):
            async with client(tmp_path, certificate) as http:
                answer = await http.put(url + START, headers=USER)
                answers[certificate] = answer.status_code, answer.text
        async with client(tmp_path, "virt-api") as http:
            with pytest.raises(httpx.TransportError):
                await http.put(url + START, headers=USER)
        process.terminate()
        code = await process.wait()
    refused = 401, "request is not authenticated"
    # Who it is is known by then; that there is no kube-apiserver to ask is another matter.
    assert answers == {None: refused, "other-name": refused, "aggregator": (500, "")}
    assert code == 0


@pytest.mark.anyio
async def test_an_upgrade_to_a_websocket_is_an_ordinary_get(tmp_path: Path) -> None:
    async with virt_api(tmp_path) as (process, url), client(tmp_path) as http:
        refused = await http.get(url + CONSOLE, headers=WEBSOCKET)
        after = await http.get(f"{url}/healthz")
        process.terminate()
        await process.wait()
    assert (refused.status_code, refused.text) == (401, "request is not authenticated")
    assert after.status_code == 200


@pytest.mark.anyio
async def test_http_is_read_in_c(tmp_path: Path) -> None:
    async with virt_api(tmp_path) as (process, _):
        mapped = await anyio.Path(f"/proc/{process.pid}/maps").read_text()
        process.terminate()
        await process.wait()
    assert "/httptools/parser" in mapped
