"""Bringing a local cluster up: which programs start when, and what each of them needs before."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from clusters.endpoints import ENDPOINTS_FILE, Endpoints
from clusters.local.kubernetes import CONTROL_PLANE, STORE, Kubernetes
from clusters.local.ports import Ports
from clusters.local.programs import TEMPORAL, VIRT_API, install, programs
from clusters.local.readiness import await_answers, await_apiserver
from clusters.local.toolchain import Toolchain
from clusters.supervisor import Supervisor
from virtflow.terminal import phase

__all__ = ["await_recovered", "start"]

REQUEST_COST = timedelta(milliseconds=50)
"""CPU time that a request costs a guest."""


def start(
    name: str,
    folder: Path,
    supervisor: Supervisor,
    toolchain: Toolchain,
    nodes: int,
    before_work: Callable[[Endpoints], None],
) -> Endpoints:
    """Start what does not run yet, and return when everything answers. `before_work`: as `LocalCluster.up` says."""
    ports = Ports.choose(folder / "ports.json", in_use=supervisor.pid() is not None)
    kubernetes = Kubernetes(folder, ports)
    endpoints = _describe(name, kubernetes)
    with phase("Starting etcd, kube-apiserver and Temporal") as show:
        kubernetes.prepare()
        supervisor.configure(
            [*kubernetes.programs(toolchain), *programs(kubernetes, toolchain, endpoints, REQUEST_COST)]
        )
        supervisor.start(*STORE, TEMPORAL)
        asyncio.run(await_apiserver(kubernetes, supervisor, show))
    with phase("Installing KubeVirt's stand-in, the IAM gateway, metrics-server"):
        # These need nothing of what is installed, and start meanwhile.
        supervisor.start(*CONTROL_PLANE, VIRT_API)
        asyncio.run(install(kubernetes, nodes))
        endpoints.save(folder / ENDPOINTS_FILE)
        before_work(endpoints)
        supervisor.start()
    with phase("Waiting until everything answers") as show:
        asyncio.run(await_answers(kubernetes, endpoints, supervisor, show))
    return endpoints


def await_recovered(folder: Path, supervisor: Supervisor, endpoints: Endpoints) -> None:
    """Until everything of a cluster that is up runs, and what serves answers. Raises ClusterError."""
    kubernetes = Kubernetes(folder, Ports.choose(folder / "ports.json", in_use=True))
    asyncio.run(await_answers(kubernetes, endpoints, supervisor, lambda _: None))


def _describe(name: str, kubernetes: Kubernetes) -> Endpoints:
    ports = kubernetes.ports
    return Endpoints(
        name=name,
        kubevirt="stand-in (KubeVirt itself comes as container images; docs/DEVIATIONS.md says what it models)",
        kubeconfig=kubernetes.kubeconfig,
        ca_cert=kubernetes.ca_cert,
        gateway_url=f"https://127.0.0.1:{ports.gateway}",
        guests_url=f"http://127.0.0.1:{ports.guests}",
        audit_log=kubernetes.audit_log,
        access_log=kubernetes.folder / "logs" / "gateway-access.log",
        temporal_address=f"127.0.0.1:{ports.temporal}",
        temporal_ui=f"http://127.0.0.1:{ports.temporal_ui}",
    )
