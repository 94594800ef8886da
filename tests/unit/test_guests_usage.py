"""The loop that reports what guests use, and a kube-apiserver that refuses it: for a moment, or for good."""

import asyncio
from datetime import timedelta
from typing import cast

import pytest

from clusters.kubevirt.guests import usage
from clusters.kubevirt.guests.directory import Directory
from clusters.kubevirt.guests.usage import report_usage
from virtflow.kube import Informer, KubeClient, KubeError

pytestmark = pytest.mark.anyio

REFUSED = KubeError(403, {"reason": "Forbidden", "message": "no"}, "PATCH")


class Writes:
    """In the place of `write_usage`: refused as often as told, then let through, and ended at last."""

    def __init__(self, refusals: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refusals = refusals
        self.written = 0
        monkeypatch.setattr(usage, "WINDOW", timedelta())
        monkeypatch.setattr(usage, "write_usage", self.write)

    async def write(self, *_: object) -> None:
        if self.refusals:
            self.refusals -= 1
            raise REFUSED
        self.written += 1
        if self.written == 3:
            raise asyncio.CancelledError


async def report() -> None:
    await report_usage(cast(KubeClient, None), cast(Directory, None), cast(Informer, None))


async def test_a_kube_apiserver_that_has_just_started_may_not_know_its_roles_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writes = Writes(5, monkeypatch)
    with pytest.raises(asyncio.CancelledError):
        await report()
    assert writes.written == 3


async def test_one_that_goes_on_refusing_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "REFUSED_FOR", timedelta())
    writes = Writes(5, monkeypatch)
    with pytest.raises(KubeError):
        await report()
    assert writes.written == 0
