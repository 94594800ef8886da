"""What runs beside Kubernetes on a local cluster: each program's command line, identity and rights."""

import sys
from datetime import timedelta
from pathlib import Path

import clusters.gateway.install
import clusters.kubevirt.guests.install
import clusters.kubevirt.install
from clusters.endpoints import ENDPOINTS_FILE, Endpoints
from clusters.gateway.limits import STOP_LIMIT
from clusters.local import manifests
from clusters.local.kubeconfig import kubeconfig_of_token
from clusters.local.kubernetes import FRONT_PROXY, Kubernetes
from clusters.local.toolchain import Toolchain
from clusters.supervisor import Program
from virtflow.kube import KubeClient, Object, Resource

__all__ = ["TEMPORAL", "VIRT_API", "WORKER", "install", "programs"]

TOKEN_LIFETIME = timedelta(days=365)
VIRT_API, TEMPORAL, WORKER = "virt-api", "temporal", "worker"

# Program → the service account it acts as, so that each has its own name in the audit log.
SERVICE_ACCOUNT_OF = {
    "virt-controller": ("kubevirt", "kubevirt-controller"),
    "virt-handler": ("kubevirt", "kubevirt-handler"),
    "guests": ("virtflow-system", "guests"),
    "gateway": ("virtflow-system", "iam-gateway"),
    "metrics-server": ("kube-system", "metrics-server"),
}


async def install(cluster: Kubernetes, nodes: int) -> None:
    """Put what the programs need into the cluster, and write a kubeconfig for each. Twice does no harm."""
    ca, ports = cluster.ca_cert.read_bytes(), cluster.ports
    async with await KubeClient.connect(cluster.kubeconfig) as kube:
        wanted: list[tuple[Resource, Object]] = [
            *manifests.nodes(nodes),
            *manifests.metrics_server(ports.metrics_server, ca),
            *clusters.gateway.install.manifests(),
            *clusters.kubevirt.guests.install.manifests(),
            *clusters.kubevirt.install.manifests(f"https://127.0.0.1:{ports.virt_api}", ca),
        ]
        for resource, body in wanted:
            await kube.apply(resource, body, body["metadata"].get("namespace"))
        for program, (namespace, account) in SERVICE_ACCOUNT_OF.items():
            token = await kube.create_token(namespace, account, TOKEN_LIFETIME)
            kubeconfig_of_token(cluster.kubeconfig_of(program), cluster.server, cluster.ca_cert, token)


def programs(
    cluster: Kubernetes, toolchain: Toolchain, endpoints: Endpoints, request_cost: timedelta
) -> list[Program]:
    """The processes for the supervisor to keep."""
    certs, ports = cluster.pki, cluster.ports

    def python(module: str, *arguments: str | Path) -> list[str | Path]:
        return [sys.executable, "-m", module, *arguments]

    def kubevirt(command: str, *arguments: str) -> list[str | Path]:
        return python("clusters.kubevirt", command, *arguments)

    def kubeconfig(program: str) -> str:
        return f"--kubeconfig={cluster.kubeconfig_of(program)}"

    def tls(program: str) -> tuple[str, str]:
        return f"--tls-cert={certs / program}.crt", f"--tls-key={certs / program}.key"

    metrics_kubeconfig = cluster.kubeconfig_of("metrics-server")
    return [
        Program(
            VIRT_API,
            kubevirt(
                "api",
                kubeconfig("kubevirt-apiserver"),
                f"--port={ports.virt_api}",
                *tls(VIRT_API),
                f"--front-proxy-ca={certs / 'front-proxy-ca.crt'}",
                f"--front-proxy-name={FRONT_PROXY}",
                f"--handler-url=https://127.0.0.1:{ports.virt_handler}",
                f"--handler-ca={certs / 'kubevirt-ca.crt'}",
                f"--handler-cert={certs / 'virt-handler-client.crt'}",
                f"--handler-key={certs / 'virt-handler-client.key'}",
            ),
        ),
        Program(
            "virt-controller",
            # The supervisor keeps one process of it, so its successor may take its Lease at once.
            kubevirt("controller", kubeconfig("virt-controller"), "--identity=virt-controller-0"),
        ),
        Program(
            "virt-handler",
            kubevirt(
                "handler",
                kubeconfig("virt-handler"),
                f"--port={ports.virt_handler}",
                *tls("virt-handler"),
                f"--client-ca={certs / 'kubevirt-ca.crt'}",
            ),
        ),
        Program(
            "guests",
            kubevirt(
                "guests",
                kubeconfig("guests"),
                f"--port={ports.guests}",
                f"--request-cost={request_cost // timedelta(milliseconds=1)}",
            ),
        ),
        Program(
            "gateway",
            python(
                "clusters.gateway",
                kubeconfig("gateway"),
                f"--port={ports.gateway}",
                *tls("gateway"),
                f"--access-log={endpoints.access_log}",
            ),
            stop_limit=STOP_LIMIT + timedelta(seconds=5),
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
                # What a process has written survives its death, which is what is promised here, also without
                # waiting for the disk at every step: that is for a machine that loses its power.
                "--sqlite-pragma=journal_mode=WAL",
                "--sqlite-pragma=synchronous=OFF",
                # The answer to a workflow's task brings the activity it asked for along, instead of a further poll.
                "--dynamic-config-value=system.enableActivityEagerExecution=true",
                "--log-level=warn",
            ],
        ),
        Program("load", python("load", cluster.folder / "load")),
        Program(WORKER, python("virtflow.worker", cluster.folder / ENDPOINTS_FILE)),
    ]
