"""The local cluster itself: what listens where, who is who, what survives, and what `down` leaves."""

import json
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil
import pytest

from clusters.endpoints import Endpoints
from clusters.local import LAYOUT, LocalCluster
from clusters.supervisor.processes import kill
from tests.integration.support import make_template
from virtflow.errors import InputError
from virtflow.settings import Settings

COMPONENTS = (
    "crash-watch",
    "etcd",
    "gateway",
    "guests",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "load",
    "metrics-server",
    "supervisord",
    "temporal",
    "virt-api",
    "virt-controller",
    "virt-handler",
    "worker",
)
# Every JSON Web Token begins so: it is `{"` in base64.
TOKEN = b"eyJ"
T = TypeVar("T")


def wait_until(probe: Callable[[], T], limit: float) -> T:
    deadline = time.monotonic() + limit
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {limit} s"
        time.sleep(0.2)
    return found


def pids(cluster: LocalCluster) -> dict[str, int | None]:
    return {component.name: component.pid for component in cluster.status()}


def processes_of(cluster: LocalCluster) -> list[psutil.Process]:
    """Every process that has to do with this cluster, whoever started it."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = str(cluster.folder) in " ".join(process.cmdline())
        except psutil.Error:
            continue
        if mine and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def audit_events(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines()[:-1]:
        yield json.loads(line)


class Kubectl(Protocol):
    def __call__(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="module")
def kubectl(kubectl: Path, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """kubectl as the platform's administrator, without a trace in the user's own folder."""
    cache = tmp_path_factory.mktemp("kubectl")

    def run(*arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(kubectl), "--kubeconfig", str(kubeconfig), "--cache-dir", str(cache), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=check)

    return run


@pytest.fixture(scope="module")
def machine(kubectl: Kubectl) -> Iterator[str]:
    """The namespace of a virtual machine that runs."""
    namespace = f"it-{uuid.uuid4().hex[:8]}"
    spec = {"running": True, "template": make_template("one")}
    manifest = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "one"}, "spec": spec}
    kubectl("create", "namespace", namespace)
    try:
        kubectl("apply", "--namespace", namespace, "--filename=-", stdin=json.dumps(manifest))
        running = "--for=jsonpath={.status.printableStatus}=Running"
        kubectl("wait", "--namespace", namespace, running, "--timeout=60s", "vm/one")
        yield namespace
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def test_every_component_runs(cluster: LocalCluster) -> None:
    states = {component.name: component.state for component in cluster.status()}
    assert states == dict.fromkeys(COMPONENTS, "RUNNING")


def test_everything_listens_on_loopback_only(cluster: LocalCluster, endpoints: Endpoints) -> None:
    processes = processes_of(cluster)
    assert {process.pid for process in processes} >= {pid for pid in pids(cluster).values() if pid}
    sockets = listening(processes)
    assert {ip for ip, _ in sockets} == {"127.0.0.1"}
    for url in (
        endpoints.gateway_url,
        endpoints.guests_url,
        endpoints.temporal_ui,
        f"//{endpoints.temporal_address}",
    ):
        assert ("127.0.0.1", int(url.rpartition(":")[2])) in sockets


def test_a_second_up_changes_nothing_that_runs(cluster: LocalCluster, endpoints: Endpoints) -> None:
    before = pids(cluster)
    assert None not in before.values()
    assert cluster.up() == endpoints
    assert pids(cluster) == before


@pytest.mark.usefixtures("machine")
def test_each_actor_has_a_name_of_its_own_in_the_audit_log(audit_log: Path) -> None:
    actors = {
        "virtflow-admin",
        "system:kube-scheduler",
        "system:kwok-controller",
        "system:serviceaccount:kubevirt:kubevirt-controller",
        "system:serviceaccount:kubevirt:kubevirt-handler",
        # A controller of kube-controller-manager acts in a name of its own.
        "system:serviceaccount:kube-system:service-account-controller",
    }
    users: set[str] = set()

    def all_seen() -> bool:
        users.update(event["user"]["username"] for event in audit_events(audit_log))
        return users >= actors

    wait_until(all_seen, 20)
    assert "kubernetes-admin" not in users


@pytest.mark.usefixtures("machine")
def test_no_log_holds_a_token(cluster: LocalCluster, audit_log: Path, access_log: Path) -> None:
    logs = {audit_log, access_log, *(component.log for component in cluster.status())}
    logs |= set((cluster.folder / "logs").iterdir())
    with_token = [log.name for log in logs if log.exists() and TOKEN in log.read_bytes()]
    assert with_token == []
    assert audit_log.stat().st_size > 0
    assert TOKEN in (cluster.folder / "kubeconfigs" / "gateway.yaml").read_bytes()


def test_what_holds_a_credential_is_for_its_owner_alone(cluster: LocalCluster) -> None:
    assert cluster.folder.stat().st_mode & 0o077 == 0
    secrets = [*cluster.folder.rglob("*.key"), *(cluster.folder / "kubeconfigs").iterdir()]
    assert len(secrets) > 10
    assert [file for file in secrets if file.stat().st_mode & 0o077] == []


def test_kubectl_top_shows_figures(kubectl: Kubectl, machine: str) -> None:
    def top(*arguments: str) -> list[list[str]]:
        result = kubectl("top", *arguments, "--no-headers", check=False)
        return [line.split() for line in result.stdout.splitlines()] if result.returncode == 0 else []

    [[name, cpu, memory]] = wait_until(lambda: top("pods", "--namespace", machine), 60)
    assert name.startswith("virt-launcher-one-")
    assert (cpu[-1], memory[-2:]) == ("m", "Mi")
    rows = wait_until(lambda: top("nodes"), 60)
    assert {row[0] for row in rows} <= {"node-1", "node-2", "node-3"}


def test_the_gateway_is_trusted_by_the_cluster_s_ca_only(gateway_url: str, ca_cert: Path) -> None:
    trusted = ssl.create_default_context(cafile=str(ca_cert))
    with urllib.request.urlopen(f"{gateway_url}/readyz", context=trusted, timeout=10) as answer:
        assert answer.status == 200
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{gateway_url}/readyz", timeout=10)


@pytest.mark.parametrize("component", ["etcd", "guests"])
def test_the_log_of_a_component_is_what_it_wrote(cluster: LocalCluster, component: str) -> None:
    assert cluster.log(component).stat().st_size > 0


def test_an_unknown_component_is_an_error_that_names_the_known(cluster: LocalCluster) -> None:
    with pytest.raises(InputError, match=r"There is no component 'kubelet'\. There are: crash-watch, .*worker"):
        cluster.log("kubelet")


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver", "kube-scheduler", "temporal", "guests", "crash-watch"])
def test_whatever_is_killed_comes_back_by_itself(cluster: LocalCluster, kubectl: Kubectl, name: str) -> None:
    first = pids(cluster)[name]
    restarts = {component.name: component.restarts for component in cluster.status()}[name]
    assert first is not None
    psutil.Process(first).kill()
    wait_until(lambda: pids(cluster).get(name) not in (first, None), 20)
    wait_until(lambda: all(component.state == "RUNNING" for component in cluster.status()), 40)
    wait_until(lambda: kubectl("get", "--raw", "/readyz", check=False).stdout == "ok", 40)
    assert {component.name: component.restarts for component in cluster.status()}[name] == restarts + 1


def test_a_virtual_machine_runs_after_supervisord_was_killed(
    cluster: LocalCluster, kubectl: Kubectl, machine: str
) -> None:
    before = pids(cluster)
    daemon = before["supervisord"]
    assert daemon is not None
    psutil.Process(daemon).kill()
    wait_until(lambda: set(pids(cluster).values()).isdisjoint({*before.values(), None}), 40)
    wait_until(lambda: all(component.state == "RUNNING" for component in cluster.status()), 60)
    restarts = {component.name: component.restarts for component in cluster.status()}
    assert restarts["supervisord"] == 1

    def status() -> str:
        kind = "jsonpath={.status.printableStatus}"
        return kubectl("get", "vm/one", "--namespace", machine, "--output", kind, check=False).stdout

    wait_until(lambda: status() == "Running", 60)
    # And it is not only what etcd remembers: the controllers and the node are at work again.
    kubectl("delete", "vm/one", "--namespace", machine, "--timeout=60s")
    assert kubectl("get", "pods", "--namespace", machine, "--output=name").stdout == ""


def test_up_chooses_another_port_for_one_that_a_stranger_has_taken(cluster: LocalCluster, settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="ports ") as folder, socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        other = LocalCluster(settings.model_copy(update={"cluster": "ports", "state_home": Path(folder)}))
        other.folder.mkdir(parents=True)
        (other.folder / "layout").write_text(LAYOUT)
        taken = stranger.getsockname()[1]
        (other.folder / "ports.json").write_text(json.dumps({"kube_apiserver": taken, "gateway": taken + 1}))
        try:
            endpoints = other.up()
            assert str(taken) not in endpoints.kubeconfig.read_text()
            assert other.up() == endpoints
        finally:
            other.down()
    assert processes_of(cluster)


def test_up_ends_what_nobody_keeps_and_down_finds_it_by_another_path(settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="orphans ") as folder:
        (Path(folder) / "real").mkdir()
        (Path(folder) / "link").symlink_to("real")
        other = settings.model_copy(update={"cluster": "orphans", "state_home": Path(folder) / "real"})
        by_link = settings.model_copy(update={"cluster": "orphans", "state_home": Path(folder) / "link"})
        try:
            LocalCluster(other).up()
            before = processes_of(LocalCluster(other))
            keepers = [process for process in before if "supervisor" in " ".join(process.cmdline())]
            assert len(keepers) == 2
            kill(keepers)
            LocalCluster(by_link).up()
            assert not [process for process in before if process in processes_of(LocalCluster(other))]
        finally:
            LocalCluster(by_link).down()
        assert processes_of(LocalCluster(other)) == []
        assert list((Path(folder) / "real").iterdir()) == []


def test_a_folder_of_another_version_is_made_anew(settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="old ") as folder:
        other = LocalCluster(settings.model_copy(update={"cluster": "old", "state_home": Path(folder)}))
        (other.folder / "pki").mkdir(parents=True)
        (other.folder / "pki" / "ca.crt").write_text("of another time")
        (other.folder / "endpoints.json").write_text("{}")
        try:
            other.up()
            assert {component.state for component in other.status()} == {"RUNNING"}
        finally:
            other.down()
        assert list(Path(folder).iterdir()) == []


def test_down_ends_one_cluster_and_leaves_the_other_alone(cluster: LocalCluster, settings: Settings) -> None:
    before = pids(cluster)
    with tempfile.TemporaryDirectory(prefix=f"{uuid.uuid4().hex[:8]} 2nd ") as folder:
        other = LocalCluster(settings.model_copy(update={"cluster": "second", "state_home": Path(folder)}))
        try:
            other.up()
            processes = processes_of(other)
            ports = listening(processes)
            assert len(processes) >= len(COMPONENTS)
            assert not ports & listening(processes_of(cluster))
        finally:
            other.down()
        assert processes_of(other) == []
        assert not [
            process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ]
        for address in ports:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address).close()
        assert list(Path(folder).iterdir()) == []
        assert not Path(folder.split(" ")[0]).exists(), "a path was cut off at a space"
        assert not other.is_up()
        other.down()
    assert pids(cluster) == before
    assert processes_of(cluster)
