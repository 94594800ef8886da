"""Kubernetes itself as host processes: etcd, the control plane and kwok's nodes, managed by kwokctl.

kwokctl chooses the ports, writes the flags and starts them. What it is told here: listen on loopback only
(its default is every interface, with an etcd that asks for no credentials), RBAC and admission on, an audit
log, an identity for each component, and an HPA that decides within seconds instead of minutes.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from clusters.endpoints import ClusterError
from clusters.local import pki, processes
from clusters.local.kubeconfig import kubeconfig_of_certificate
from clusters.local.ports import free_ports
from clusters.local.toolchain import Toolchain

__all__ = ["COMPONENTS", "KwokCluster"]

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller")
KUBERNETES_VERSION = "v1.36.3"
SERVER_NAMES = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")

# Who each component is: common name and groups of its certificate.
IDENTITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("virtflow-admin", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    # kwok plays every node's kubelet, and starts before a role of its own could be granted.
    "kwok-controller": ("system:kwok-controller", ("system:masters",)),
}

# Flags of kube-controller-manager. Real clusters wait minutes so that a noisy metric does not flap; here the
# guests' load is the only thing that moves. The initialization periods decide how long a new pod counts as
# idle because it may still be starting: metrics-server's first figure comes later anyway.
HPA_FLAGS = {
    "horizontal-pod-autoscaler-sync-period": "5s",
    "horizontal-pod-autoscaler-initial-readiness-delay": "1s",
    "horizontal-pod-autoscaler-cpu-initialization-period": "1s",
    "horizontal-pod-autoscaler-downscale-stabilization": "15s",
}


@dataclass(frozen=True)
class KwokCluster:
    """One cluster of kwokctl's. `folder` holds all its state."""

    name: str
    folder: Path

    @property
    def home(self) -> Path:
        """kwokctl's own folder of this cluster: pki/, logs/, pids/, kwok.yaml."""
        return self.folder / ".kwok" / "clusters" / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfigs" / "admin.yaml"

    @property
    def audit_log(self) -> Path:
        return self.home / "logs" / "audit.log"

    @property
    def ca_cert(self) -> Path:
        return self.home / "pki" / "ca.crt"

    @property
    def server(self) -> str:
        """The kube-apiserver's URL."""
        cluster = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        return str(cluster["server"])

    def exists(self) -> bool:
        return (self.home / "kwok.yaml").exists()

    def create(self, toolchain: Toolchain) -> None:
        """Make the cluster, start it, and return when its apiserver, controllers and kwok are ready."""
        # kwok.yaml is what kwokctl writes last: a folder without it is a creation that was interrupted.
        self.delete()
        self.home.mkdir(parents=True, mode=0o700)
        [port] = free_ports(1)
        self._create_identities(f"https://127.0.0.1:{port}")
        config = self.folder / "kwokctl.yaml"
        config.write_text(yaml.safe_dump(self._config(toolchain, port), sort_keys=False))
        # Else it would be the user's own kubeconfig that it adds its context to.
        kubeconfig = str(self.folder / "kwokctl.kubeconfig")
        self._kwokctl(
            toolchain, "create", "cluster", "--config", str(config), "--kubeconfig", kubeconfig, "--wait", "60s"
        )

    def start(self, toolchain: Toolchain) -> None:
        """Start whatever of it is not running, and wait until it is ready."""
        for component, pid in self.pids().items():
            if pid is None:
                # kwokctl believes the file: after a reboot it would take a stranger for the component.
                self._pid_file(component).unlink(missing_ok=True)
        self._kwokctl(toolchain, "start", "cluster", "--wait", "60s")

    def delete(self) -> None:
        """End its processes and remove its folder. A cluster that is not there is fine.

        By our own hand, and not by `kwokctl delete`, which neither looks whose process it kills nor waits for
        its end. At once, because what a component would still save goes with the folder.
        """
        processes.kill([process for component in COMPONENTS if (process := self._process(component))])
        shutil.rmtree(self.home, ignore_errors=True)

    def pids(self) -> Mapping[str, int | None]:
        """Each component's process, None if it is not running."""
        found = {component: self._process(component) for component in COMPONENTS}
        return {component: process.pid if process else None for component, process in found.items()}

    def _process(self, component: str) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file(component).read_text()))
            # The pid may have been given to a stranger since: its command line must be this cluster's.
            command = process.cmdline()
        except (OSError, ValueError, psutil.Error):
            return None
        return process if any(str(self.home) in part for part in command) else None

    def _pid_file(self, component: str) -> Path:
        return self.home / "pids" / f"{component}.pid"

    def _kwokctl(self, toolchain: Toolchain, *arguments: str) -> None:
        command = [str(toolchain.program("kwokctl")), *arguments, "--name", self.name]
        # Its folder is ~/.kwok, and so by HOME this cluster's own, where no user's kwok.yaml is read either.
        # KWOK_WORKDIR would say so more plainly, but what it reads from the environment it cuts off at a space.
        env = {key: value for key, value in os.environ.items() if not key.startswith("KWOK_")}
        env["HOME"] = str(self.folder)
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise ClusterError(
                f"`kwokctl {' '.join(arguments[:2])}` failed for cluster {self.name}:\n"
                f"{result.stderr.strip()[-1500:]}\n{self._last_words()}"
                f"Type `make down` to remove what is left, then try again."
            )

    def _last_words(self) -> str:
        """The last lines of the components that are not running."""
        words = ""
        for component, pid in self.pids().items():
            log = self.home / "logs" / f"{component}.log"
            if pid is None and log.exists():
                lines = log.read_text(errors="replace").splitlines()[-10:]
                words += f"The last lines of {component}, which is not running:\n  " + "\n  ".join(lines) + "\n"
        return words

    def _create_identities(self, server: str) -> None:
        folder = self.home / "pki"
        folder.mkdir(mode=0o700)
        ca = pki.create_authority(folder, "ca")
        kubeconfigs = self.kubeconfig.parent
        kubeconfigs.mkdir(exist_ok=True, mode=0o700)
        for name, (user, groups) in IDENTITIES.items():
            # kwokctl makes `admin` the apiserver's server certificate too, and the key of service account tokens.
            names = SERVER_NAMES if name == "admin" else ()
            pair = pki.issue(ca, folder, name, user, groups=groups, names=names)
            kubeconfig_of_certificate(kubeconfigs / f"{name}.yaml", server, ca.pair.cert, pair)
        front = pki.create_authority(folder, "front-proxy-ca")
        pki.issue(front, folder, "front-proxy-client", "front-proxy-client")

    def _config(self, toolchain: Toolchain, port: int) -> dict[str, Any]:
        certs, program = self.home / "pki", toolchain.program
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(AUDIT_POLICY, sort_keys=False))
        flags: dict[str, dict[str, object]] = {
            "kube-apiserver": {
                "requestheader-client-ca-file": certs / "front-proxy-ca.crt",
                "requestheader-allowed-names": "front-proxy-client",
                "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group",
                "requestheader-extra-headers-prefix": "X-Remote-Extra-",
                "audit-log-maxsize": "1000",
            },
            "kube-controller-manager": {"use-service-account-credentials": "true", **HPA_FLAGS},
        }
        replaced: dict[str, dict[str, object]] = {
            "kube-apiserver": {
                "proxy-client-cert-file": certs / "front-proxy-client.crt",
                "proxy-client-key-file": certs / "front-proxy-client.key",
            },
            **{
                component: {"kubeconfig": self.folder / "kubeconfigs" / f"{component}.yaml"}
                for component in ("kube-controller-manager", "kube-scheduler", "kwok-controller")
            },
        }
        return {
            "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
            "kind": "KwokctlConfiguration",
            "metadata": {"name": self.name},
            "options": {
                "runtime": "binary",
                "bindAddress": "127.0.0.1",
                "securePort": True,
                "kubeApiserverPort": port,
                "kubeVersion": KUBERNETES_VERSION,
                "kubeAuthorization": True,
                "kubeAdmission": True,
                "kubeAuditPolicy": str(policy),
                "disableQPSLimits": True,
                "enableCRDs": ["Metric", "ClusterResourceUsage"],
                "etcdBinary": str(program("etcd")),
                "kubeApiserverBinary": str(program("kube-apiserver")),
                "kubeControllerManagerBinary": str(program("kube-controller-manager")),
                "kubeSchedulerBinary": str(program("kube-scheduler")),
                "kubectlBinary": str(program("kubectl")),
                "kwokControllerBinary": str(program("kwok")),
            },
            "componentsPatches": [
                {
                    "name": component,
                    "extraArgs": _arguments(flags.get(component, {}), replaced.get(component, {})),
                }
                for component in sorted(flags.keys() | replaced.keys())
            ],
        }


def _arguments(added: Mapping[str, object], replaced: Mapping[str, object]) -> list[dict[str, Any]]:
    return [
        *({"key": key, "value": str(value)} for key, value in added.items()),
        *({"key": key, "value": str(value), "override": True} for key, value in replaced.items()),
    ]


KUBEVIRT_AND_PODS = [
    {"group": "kubevirt.io"},
    {"group": "", "resources": ["pods", "pods/status", "pods/binding"]},
    {"group": "apps", "resources": ["controllerrevisions"]},
    {"group": "autoscaling", "resources": ["horizontalpodautoscalers", "horizontalpodautoscalers/status"]},
]
WRITES = ["create", "update", "patch", "delete", "deletecollection"]

AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        # Leases are renewed all the time, and events and node heartbeats prove nothing.
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}, {"group": "events.k8s.io"}]},
        {"level": "None", "resources": [{"group": "", "resources": ["nodes", "nodes/status"]}]},
        # The proof of a sequence is in the bodies: owner references, phases, replicas.
        {"level": "RequestResponse", "verbs": WRITES, "resources": KUBEVIRT_AND_PODS},
        # Everything else by name only. That includes token reviews and requests, whose bodies hold tokens.
        {"level": "Metadata", "verbs": WRITES},
        {"level": "None"},
    ],
}
