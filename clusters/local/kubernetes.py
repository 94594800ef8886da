"""Kubernetes itself as host processes: etcd, the control plane, and kwok, which plays the nodes' kubelets.

What a distribution's installer does, in one page: certificates that give each component an identity of its
own in the audit log, kubeconfigs, an audit policy, and the flags. RBAC and admission are on, everything
listens on loopback only, and the HPA decides within seconds instead of minutes. The supervisor keeps the
processes; not kwokctl, which restarts nothing, and would be a second one beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clusters.kubevirt.install import HANDLER_CLIENT_NAME, HANDLER_NAME
from clusters.local import pki
from clusters.local.kubeconfig import kubeconfig_of_certificate
from clusters.local.ports import Ports
from clusters.local.toolchain import Toolchain
from clusters.supervisor import Program

__all__ = ["CONTROL_PLANE", "FRONT_PROXY", "STORE", "Kubernetes"]

STORE = ("etcd", "kube-apiserver")
CONTROL_PLANE = ("kube-controller-manager", "kube-scheduler", "kwok")
NODES = Path(__file__).with_name("nodes.yaml")
SERVER_NAMES = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")

# Whose kubeconfig it is: common name and groups of its certificate.
IDENTITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("virtflow-admin", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    # It plays every node's kubelet, and starts before a role of its own could be granted.
    "kwok": ("system:kwok-controller", ("system:masters",)),
    # Its service account's name and groups: it serves before the account could be given a token.
    "kubevirt-apiserver": (
        "system:serviceaccount:kubevirt:kubevirt-apiserver",
        ("system:serviceaccounts", "system:serviceaccounts:kubevirt"),
    ),
}
FRONT_PROXY = "front-proxy-client"

# Real clusters wait minutes so that a noisy metric does not flap; here the guests' load is the only thing that
# moves. The initialization periods decide how long a new pod counts as idle because it may still be starting:
# metrics-server's first figure comes later anyway.
HPA_FLAGS = {
    "horizontal-pod-autoscaler-sync-period": "5s",
    "horizontal-pod-autoscaler-initial-readiness-delay": "1s",
    "horizontal-pod-autoscaler-cpu-initialization-period": "1s",
    "horizontal-pod-autoscaler-downscale-stabilization": "15s",
}
# Each is alone, and after a crash must not wait until its own old lease has run out.
ALONE = {"leader-elect": "false", "kube-api-qps": "5000", "kube-api-burst": "10000"}


@dataclass(frozen=True)
class Kubernetes:
    """One cluster's. Its state is in `folder`: pki/, kubeconfigs/, etcd/, logs/audit.log."""

    folder: Path
    ports: Ports

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def kubeconfig(self) -> Path:
        """Of the platform's administrator."""
        return self.kubeconfig_of("admin")

    @property
    def audit_log(self) -> Path:
        return self.folder / "logs" / "audit.log"

    @property
    def ca_cert(self) -> Path:
        return self.pki / "ca.crt"

    @property
    def server(self) -> str:
        """The kube-apiserver's URL."""
        return f"https://127.0.0.1:{self.ports.kube_apiserver}"

    def kubeconfig_of(self, identity: str) -> Path:
        return self.folder / "kubeconfigs" / f"{identity}.yaml"

    def prepare(self) -> None:
        """Write everything its programs read when they start: certificates once, the rest anew."""
        self.pki.mkdir(exist_ok=True, mode=0o700)
        self.kubeconfig.parent.mkdir(exist_ok=True, mode=0o700)
        ca = pki.authority(self.pki, "ca")
        front = pki.authority(self.pki, "front-proxy-ca")
        pki.issue(front, self.pki, FRONT_PROXY, FRONT_PROXY)
        pki.issue(ca, self.pki, "kube-apiserver", "kube-apiserver", names=SERVER_NAMES)
        pki.issue(ca, self.pki, "service-accounts", "service-accounts")
        for name in ("virt-api", "gateway", "metrics-server"):
            services = (f"{name}.{namespace}.svc" for namespace in ("kube-system", "kubevirt"))
            pki.issue(ca, self.pki, name, name, names=("127.0.0.1", "localhost", *services))
        # A CA for these two alone: with another's certificate nobody else passes for one of them.
        kubevirt = pki.authority(self.pki, "kubevirt-ca")
        pki.issue(kubevirt, self.pki, "virt-handler", HANDLER_NAME, names=("127.0.0.1",))
        pki.issue(kubevirt, self.pki, "virt-handler-client", HANDLER_CLIENT_NAME)
        for name, (user, groups) in IDENTITIES.items():
            pair = pki.issue(ca, self.pki, name, user, groups=groups)
            kubeconfig_of_certificate(self.kubeconfig_of(name), self.server, ca.pair.cert, pair)
        self._audit_policy.write_text(yaml.safe_dump(AUDIT_POLICY, sort_keys=False))

    def programs(self, toolchain: Toolchain) -> list[Program]:
        """For the supervisor: STORE first, CONTROL_PLANE once that answers."""
        flags = {
            "etcd": self._etcd(),
            "kube-apiserver": self._kube_apiserver(),
            "kube-controller-manager": self._kube_controller_manager(),
            "kube-scheduler": self._kube_scheduler(),
            "kwok": self._kwok(),
        }
        return [
            Program(name, [toolchain.program(name), *(f"--{flag}={value}" for flag, value in of_program.items())])
            for name, of_program in flags.items()
        ]

    @property
    def _audit_policy(self) -> Path:
        return self.folder / "audit-policy.yaml"

    def _etcd(self) -> Mapping[str, object]:
        clients = f"http://127.0.0.1:{self.ports.etcd}"
        peers = f"http://127.0.0.1:{self.ports.etcd_peers}"
        return {
            "name": "local",
            "data-dir": self.folder / "etcd",
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"local={peers}",
            "auto-compaction-retention": "1",
            "quota-backend-bytes": str(8 * 2**30),
            # A killed process loses nothing by it, and a machine that loses power has no use for this cluster.
            "unsafe-no-fsync": "true",
        }

    def _kube_apiserver(self) -> Mapping[str, object]:
        return {
            "etcd-servers": f"http://127.0.0.1:{self.ports.etcd}",
            "bind-address": "127.0.0.1",
            "secure-port": self.ports.kube_apiserver,
            "authorization-mode": "Node,RBAC",
            "allow-privileged": "true",
            "service-cluster-ip-range": "10.0.0.0/24",
            # Nobody here competes with a stranger: what is asked is to be answered, not to be queued.
            "enable-priority-and-fairness": "false",
            "max-requests-inflight": "0",
            "max-mutating-requests-inflight": "0",
            **self._key_pair("tls-cert-file", "tls-private-key-file", "kube-apiserver"),
            "client-ca-file": self.ca_cert,
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": self.pki / "service-accounts.crt",
            "service-account-signing-key-file": self.pki / "service-accounts.key",
            # The aggregator is a client of metrics-server and virt-api, under a CA of its own: a certificate of the
            # clients' CA could otherwise pass for it, and claim to be anyone.
            "requestheader-client-ca-file": self.pki / "front-proxy-ca.crt",
            "requestheader-allowed-names": FRONT_PROXY,
            "requestheader-username-headers": "X-Remote-User",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            **self._key_pair("proxy-client-cert-file", "proxy-client-key-file", FRONT_PROXY),
            "audit-policy-file": self._audit_policy,
            "audit-log-path": self.audit_log,
            "audit-log-maxsize": "1000",
            # A worker that starts reads them all.
            "audit-log-maxbackup": "3",
        }

    def _kube_controller_manager(self) -> Mapping[str, object]:
        return {
            "kubeconfig": self.kubeconfig_of("kube-controller-manager"),
            "bind-address": "127.0.0.1",
            "secure-port": self.ports.kube_controller_manager,
            "root-ca-file": self.ca_cert,
            "service-account-private-key-file": self.pki / "service-accounts.key",
            # So that each controller has a name in the audit log.
            "use-service-account-credentials": "true",
            **ALONE,
            **HPA_FLAGS,
        }

    def _kube_scheduler(self) -> Mapping[str, object]:
        return {
            "kubeconfig": self.kubeconfig_of("kube-scheduler"),
            "bind-address": "127.0.0.1",
            "secure-port": self.ports.kube_scheduler,
            **ALONE,
        }

    def _kwok(self) -> Mapping[str, object]:
        return {
            "kubeconfig": self.kubeconfig_of("kwok"),
            "config": NODES,
            "manage-all-nodes": "true",
            "node-ip": "",
            "node-name": "localhost",
            "node-port": self.ports.kwok,
            "server-address": f"127.0.0.1:{self.ports.kwok}",
            **self._key_pair("tls-cert-file", "tls-private-key-file", "kube-apiserver"),
            "node-lease-duration-seconds": "0",
        }

    def _key_pair(self, cert_flag: str, key_flag: str, name: str) -> Mapping[str, object]:
        return {cert_flag: self.pki / f"{name}.crt", key_flag: self.pki / f"{name}.key"}


KUBEVIRT_AND_PODS = [
    {"group": "kubevirt.io"},
    {"group": "", "resources": ["pods", "pods/status", "pods/binding"]},
    {"group": "apps", "resources": ["controllerrevisions"]},
    {"group": "autoscaling", "resources": ["horizontalpodautoscalers", "horizontalpodautoscalers/status"]},
]
TENANTS_KINDS = [{"group": "kubevirt.io"}, {"group": "", "resources": ["pods", "secrets"]}, {"group": "autoscaling"}]
PLATFORM = [f"system:serviceaccounts:{namespace}" for namespace in ("kube-system", "kubevirt", "virtflow-system")]
GATEWAY = "system:serviceaccount:virtflow-system:iam-gateway"
HARNESS = ["virtflow-admin", GATEWAY]
READS = ["get", "list", "watch"]
WRITES = ["create", "update", "patch", "delete", "deletecollection"]

AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "omitManagedFields": True,
    "rules": [
        # Whether the stand-in lives from its watches, as it should.
        {"level": "Metadata", "verbs": ["list"], "userGroups": ["system:serviceaccounts:kubevirt"]},
        # Leases are renewed all the time, and events and node heartbeats prove nothing.
        {"level": "None", "resources": [{"group": "coordination.k8s.io"}, {"group": "events.k8s.io"}]},
        {"level": "None", "resources": [{"group": "", "resources": ["nodes", "nodes/status"]}]},
        # Whether the harness asks for more than it needs: its own reads, too, and those of the gateway for a tenant.
        {"level": "Metadata", "verbs": ["get", "list"], "users": HARNESS, "resources": [{"group": "kubevirt.io"}]},
        # What a tenant reads, and what the gateway reads for one: whether it was let. Programs read all the time.
        {"level": "Metadata", "verbs": READS, "users": [GATEWAY], "resources": TENANTS_KINDS},
        {"level": "None", "verbs": READS, "userGroups": PLATFORM},
        {"level": "Metadata", "verbs": READS, "userGroups": ["system:serviceaccounts"], "resources": TENANTS_KINDS},
        # The proof of a sequence is in the bodies: owner references, phases, replicas.
        {"level": "RequestResponse", "verbs": WRITES, "resources": KUBEVIRT_AND_PODS},
        # Everything else by name only. That includes token reviews and requests, whose bodies hold tokens.
        {"level": "Metadata", "verbs": WRITES},
        {"level": "None"},
    ],
}
