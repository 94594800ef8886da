"""virt-api of the stand-in: KubeVirt's admission webhooks, served over TLS on 127.0.0.1."""

import signal
import sys
from datetime import timedelta
from pathlib import Path

import uvicorn

from clusters.kubevirt.api.app import app

__all__ = ["app", "serve"]

KEEP_ALIVE = timedelta(minutes=5)
"""Longer than the kube-apiserver keeps an idle connection (90 s): were this side the first to close, a webhook call
sent at that moment would be lost, and a lost call is a refused write."""

GRACE = timedelta(seconds=2)
"""How long calls under way may take to end; also bounds the wait for a client that never answers TLS's goodbye."""


def serve(port: int, tls_cert: Path, tls_key: Path) -> None:
    """Answer webhooks until SIGTERM or SIGINT; then finish what is under way and return."""
    # uvicorn shuts down in order and then raises the signal once more: without this it would still be a death by
    # signal, which a supervisor takes for a crash.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
        access_log=False,
        log_config=None,
        timeout_keep_alive=int(KEEP_ALIVE.total_seconds()),
        timeout_graceful_shutdown=int(GRACE.total_seconds()),
    )
