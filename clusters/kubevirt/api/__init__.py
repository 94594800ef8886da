"""virt-api of the stand-in: KubeVirt's admission webhooks (`app`), and its subresources."""

from clusters.kubevirt.api.app import app

__all__ = ["app"]
