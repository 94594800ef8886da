"""What runs beside Kubernetes on a local cluster: each program's command line, identity and rights."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import clusters.gateway.install
import clusters.kubevirt.guests.install
import clusters.kubevirt.install
from clusters.endpoints import Endpoints
from clusters.local import manifests, pki
from clusters.local.kubeconfig import kubeconfig_of_token
from clusters.local.kwok import KwokCluster
from clusters.local.ports import free_ports
from clusters.local.supervisor import Program
from clusters.local.toolchain import Toolchain
from virtflow.kube import KubeClient, Object, Resource

__all__ = ["TEMPORAL", "WORKER", "Ports", "create_certificates", "install", "programs"]

TOKEN_LIFETIME = timedelta(days=365)
WORKER = "worker"
TEMPORAL = "temporal"

# Program → the service account it acts as, so that each has its own name in the audit log.
SERVICE_ACCOUNT_OF = {
    "virt-api": ("kubevirt", "kubevirt-apiserver"),
    "virt-controller": ("kubevirt", "kubevirt-controller"),
    "virt-handler": ("kubevirt", "kubevirt-handler"),
    "guests": ("virtflow-system", "guests"),
    "gateway": ("virtflow-system", "iam-gateway"),
    "metrics-server": ("kube-system", "metrics-server"),
}


@dataclass(frozen=True)
class Ports:
    """Ports on 127.0.0.1, chosen once in a cluster's life."""

    virt_api: int
    gateway: int
    guests: int
    metrics_server: int
    temporal: int
    temporal_ui: int

    @classmethod
    def choose(cls, file: Path) -> "Ports":
        """The ports in the file, or free ones that are then in it."""
        if not file.exists():
            file.write_text(json.dumps(dataclasses.asdict(cls(*free_ports(len(dataclasses.fields(cls)))))))
        return cls(**json.loads(file.read_text()))


def create_certificates(cluster: KwokCluster) -> None:
    """Server certificates of the programs that speak TLS, from the cluster's CA, unless they are there."""
    folder = cluster.home / "pki"
    ca = pki.load_authority(folder, "ca")
    for name in ("virt-api", "gateway", "metrics-server"):
        names = ("127.0.0.1", "localhost", f"{name}.kube-system.svc")
        if not (folder / f"{name}.key").exists():
            pki.issue(ca, folder, name, name, names=names)


async def install(cluster: KwokCluster, ports: Ports, nodes: int) -> None:
    """Put what the programs need into the cluster, and write a kubeconfig for each. Twice does no harm."""
    ca = cluster.ca_cert.read_bytes()
    async with await KubeClient.connect(cluster.kubeconfig) as kube:
        wanted: list[tuple[Resource, Object]] = [
            *manifests.nodes(nodes),
            *manifests.usage_from_annotation(),
            *manifests.metrics_server(ports.metrics_server, ca),
            *clusters.gateway.install.manifests(),
            *clusters.kubevirt.guests.install.manifests(),
            *clusters.kubevirt.install.manifests(f"https://127.0.0.1:{ports.virt_api}", ca),
        ]
        for resource, body in wanted:
            await kube.apply(resource, body, body["metadata"].get("namespace"))
        for program, (namespace, account) in SERVICE_ACCOUNT_OF.items():
            token = await kube.create_token(namespace, account, TOKEN_LIFETIME)
            file = cluster.kubeconfig.parent / f"{program}.yaml"
            kubeconfig_of_token(file, cluster.server, cluster.ca_cert, token)


def programs(
    cluster: KwokCluster, toolchain: Toolchain, ports: Ports, endpoints: Endpoints, request_cost: timedelta
) -> list[Program]:
    """The processes for the supervisor to keep."""
    certs = cluster.home / "pki"

    def python(module: str, *arguments: str | Path) -> list[str | Path]:
        return [sys.executable, "-m", module, *arguments]

    def kubeconfig(program: str) -> tuple[str, Path]:
        return "--kubeconfig", cluster.kubeconfig.parent / f"{program}.yaml"

    def tls(program: str, cert: str, key: str) -> tuple[str | Path, ...]:
        return cert, certs / f"{program}.crt", key, certs / f"{program}.key"

    own_tls = ("--tls-cert", "--tls-key")
    metrics_kubeconfig = cluster.kubeconfig.parent / "metrics-server.yaml"
    return [
        Program(
            "virt-api", python("clusters.kubevirt", "api", "--port", str(ports.virt_api), *tls("virt-api", *own_tls))
        ),
        Program("virt-controller", python("clusters.kubevirt", "controller", *kubeconfig("virt-controller"))),
        Program("virt-handler", python("clusters.kubevirt", "handler", *kubeconfig("virt-handler"))),
        Program(
            "guests",
            python(
                "clusters.kubevirt",
                "guests",
                *kubeconfig("guests"),
                "--port",
                str(ports.guests),
                "--request-cost",
                str(int(request_cost / timedelta(milliseconds=1))),
            ),
        ),
        Program(
            "gateway",
            python(
                "clusters.gateway",
                *kubeconfig("gateway"),
                "--port",
                str(ports.gateway),
                *tls("gateway", *own_tls),
                "--access-log",
                endpoints.access_log,
            ),
        ),
        Program(
            "metrics-server",
            [
                toolchain.program("metrics-server"),
                f"--kubeconfig={metrics_kubeconfig}",
                f"--authentication-kubeconfig={metrics_kubeconfig}",
                f"--authorization-kubeconfig={metrics_kubeconfig}",
                "--bind-address=127.0.0.1",
                f"--secure-port={ports.metrics_server}",
                f"--tls-cert-file={certs / 'metrics-server.crt'}",
                f"--tls-private-key-file={certs / 'metrics-server.key'}",
                f"--kubelet-certificate-authority={cluster.ca_cert}",
                # kwok's nodes share one port, and are called localhost.
                "--kubelet-use-node-status-port",
                "--kubelet-preferred-address-types=Hostname",
                # The least it accepts; it must be longer than the time-out.
                "--metric-resolution=10s",
                "--kubelet-request-timeout=5s",
            ],
        ),
        Program(
            TEMPORAL,
            [
                toolchain.program("temporal"),
                "server",
                "start-dev",
                "--ip=127.0.0.1",
                f"--port={ports.temporal}",
                "--ui-ip=127.0.0.1",
                f"--ui-port={ports.temporal_ui}",
                f"--db-filename={cluster.folder / 'temporal.db'}",
                "--log-level=warn",
            ],
        ),
        Program("load", python("load", cluster.folder / "load")),
        Program(WORKER, python("virtflow.worker", cluster.folder / "endpoints.json")),
    ]
