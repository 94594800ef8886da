"""Kubeconfig files: one for each identity."""

from pathlib import Path

import yaml

from clusters.local.pki import Pair

__all__ = ["kubeconfig_of_certificate", "kubeconfig_of_token"]


def kubeconfig_of_certificate(file: Path, server: str, ca: Path, pair: Pair) -> None:
    _write(file, server, ca, {"client-certificate": str(pair.cert), "client-key": str(pair.key)})


def kubeconfig_of_token(file: Path, server: str, ca: Path, token: str) -> None:
    _write(file, server, ca, {"token": token})


def _write(file: Path, server: str, ca: Path, user: dict[str, str]) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": file.stem, "user": user}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": file.stem}}],
        "current-context": "local",
    }
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
