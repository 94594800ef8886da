"""How many requests of which kind the kube-apiserver has answered, by its own metrics."""

import re
from collections import defaultdict

from virtflow.kube import KubeClient

__all__ = ["request_counts"]

LINE = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<count>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


async def request_counts(kube: KubeClient) -> dict[str, float]:
    """`virtualmachines POST` → how many so far; subresources apart, by `resource/subresource`."""
    counts: defaultdict[str, float] = defaultdict(float)
    # No JSON: the client hands over what it cannot decode as a message.
    answer = await kube.request("GET", "/metrics")
    for found in LINE.finditer(answer["message"]):
        labels = dict(LABEL.findall(found["labels"]))
        what = "/".join(filter(None, (labels["resource"], labels["subresource"])))
        counts[f"{what} {labels['verb']}"] += float(found["count"])
    return dict(counts)
