"""One instance leads: whoever holds the Lease works, the others wait, as with Kubernetes' own controllers.

The rules and durations are client-go's. A holder renews every two seconds; one that could not for ten stops
working, five seconds before anybody may take the Lease away. Whether it has run out is judged by how long its
record has not changed on the waiting one's own monotonic clock: nobody's wall clock is compared with another's.
A record is only ever replaced as it was read (its resourceVersion), so of two who try one succeeds.

**Who dies does not keep his successor waiting, if both have one identity.** As with client-go, a Lease that bears
the own identity is taken at once. That is safe where an identity never has two processes at a time, and who
starts the program has to see to it: supervisord keeps one process of a program, starts the next one when it has
seen the last one end, and one that finds itself alone after its own death ends what is left before it starts
anything. An instance without such a keeper draws an identity of its own, and waits the fifteen seconds. Should
somebody start a second process of one identity all the same, they do not both lead until one dies: each term has
its `acquireTime`, and the elder's next renewal, two seconds later at most, finds another term than its own and
ends it. Meanwhile both write only on condition of what they have read, and give names that follow from the owner.

Not the official client's election: it compares wall clocks, lets a renewal that hangs outlast its deadline,
takes no notice of a conflict, and does not release.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

from clusters.kubevirt.objects import now
from virtflow.errors import VirtflowError
from virtflow.kube import NO_ANSWER, KubeClient, KubeError, Object, describe
from virtflow.kube.resources import LEASES

__all__ = ["LeadershipLostError", "Lease"]

log = logging.getLogger(__name__)

DURATION = timedelta(seconds=15)
RENEW_DEADLINE = timedelta(seconds=10)
RETRY_PERIOD = timedelta(seconds=2)
RELEASE_LIMIT = timedelta(seconds=2)


class LeadershipLostError(VirtflowError):
    """Somebody else may lead by now."""


class Lease:
    """One name to hold, and who wants to."""

    def __init__(self, kube: KubeClient, namespace: str, name: str, identity: str) -> None:
        self._kube = kube
        self._namespace, self._name, self._identity = namespace, name, identity
        self._record: Object = {}
        self.has_waited = False
        """Whether it was not held at the first attempt."""

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[Object]:
        """Entered once it is held, with the record of it; released when the block has ended.

        The block is cancelled, and an ExceptionGroup with LeadershipLostError raised, when it is held no longer.
        """
        since = await self._acquire()
        log.info("%s leads", self._identity)
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(since))
                yield self._record
                renewing.cancel()
        finally:
            await self._release()

    async def _acquire(self) -> float:
        """When it was asked for with success, by the loop's clock."""
        version, changed = "", 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(RENEW_DEADLINE.total_seconds()):
                    record = await self._read()
                    asked = loop.time()
                    if record is None:
                        self._record = await self._kube.create(LEASES, self._first(), self._namespace)
                        return asked
                    if record["metadata"]["resourceVersion"] != version:
                        version, changed = record["metadata"]["resourceVersion"], asked
                    if self._is_free(record, timedelta(seconds=asked - changed)):
                        self._record = await self._kube.replace(LEASES, self._taken(record))
                        return asked
                    log.info("%s waits while %s leads", self._identity, holder_of(record))
            except (KubeError, *NO_ANSWER) as error:
                log.warning("%s does not lead yet: %s", self._identity, describe(error))
            self.has_waited = True
            await asyncio.sleep(RETRY_PERIOD.total_seconds())

    async def _read(self) -> Object | None:
        try:
            return await self._kube.get(LEASES, self._name, self._namespace)
        except KubeError as error:
            if error.code != 404:
                raise
            return None

    def _is_free(self, record: Object, unchanged: timedelta) -> bool:
        duration = timedelta(seconds=record["spec"].get("leaseDurationSeconds", 0))
        return holder_of(record) in (None, self._identity) or unchanged >= duration

    def _first(self) -> Object:
        spec = {"leaseTransitions": 0, **self._term()}
        return {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec}

    def _taken(self, record: Object) -> Object:
        transitions = record["spec"].get("leaseTransitions", 0) + (holder_of(record) != self._identity)
        return {**record, "spec": {**record["spec"], **self._term(), "leaseTransitions": transitions}}

    def _term(self) -> Object:
        time = micro_time()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION.total_seconds()),
            "acquireTime": time,
            "renewTime": time,
        }

    async def _renew(self, renewed: float) -> None:
        """Until it is lost: raises LeadershipLostError. `renewed` is when it was last known to be held."""
        loop = asyncio.get_running_loop()
        problem = "it was not asked"
        while loop.time() - renewed < RENEW_DEADLINE.total_seconds():
            await asyncio.sleep(RETRY_PERIOD.total_seconds())
            asked = loop.time()
            try:
                async with asyncio.timeout_at(renewed + RENEW_DEADLINE.total_seconds()):
                    await self._renew_once()
                renewed = asked
            except (KubeError, *NO_ANSWER) as error:
                problem = describe(error)
                log.warning("%s could not renew the Lease: %s", self._identity, problem)
        raise LeadershipLostError(
            f"{self._identity} could not renew the Lease {self._namespace}/{self._name} for "
            f"{RENEW_DEADLINE.total_seconds():.0f} s ({problem}), so that another instance may lead soon, and ends."
        )

    async def _renew_once(self) -> None:
        try:
            self._record = await self._kube.replace(LEASES, self._renewed(self._record))
        except KubeError as error:
            if error.code not in (404, 409):
                raise
            # Somebody took it, or deleted it, or the answer to an earlier renewal got lost.
            record = await self._read()
            if record is None:
                self._record = await self._create_anew()
            elif self._is_same_term(record):
                self._record = await self._kube.replace(LEASES, self._renewed(record))
            else:
                raise self._taken_by(holder_of(record)) from None

    async def _create_anew(self) -> Object:
        """The Lease of this very term; that somebody has deleted it ends no term, but it is anybody's to make."""
        meta = {"name": self._name, "namespace": self._namespace}
        try:
            return await self._kube.create(LEASES, {**self._renewed(self._record), "metadata": meta}, self._namespace)
        except KubeError as error:
            if error.code != 409:
                raise
            raise self._taken_by("another instance") from None

    def _taken_by(self, holder: str | None) -> LeadershipLostError:
        return LeadershipLostError(
            f"{self._identity} ends, because {holder} has taken the Lease {self._namespace}/{self._name} from it."
        )

    def _renewed(self, record: Object) -> Object:
        return {**record, "spec": {**record["spec"], "renewTime": micro_time()}}

    def _is_same_term(self, record: Object) -> bool:
        own, found = self._record["spec"], record["spec"]
        return all(own[field] == found.get(field) for field in ("holderIdentity", "acquireTime"))

    async def _release(self) -> None:
        """So that nobody has to wait for it to run out; if it cannot be, it does."""
        try:
            async with asyncio.timeout(RELEASE_LIMIT.total_seconds()):
                record = await self._read()
                if record is not None and self._is_same_term(record):
                    await self._kube.replace(LEASES, released(record))
        except (KubeError, *NO_ANSWER) as error:
            log.warning("%s could not release the Lease: %s", self._identity, describe(error))


def released(record: Object) -> Object:
    time = micro_time()
    spec = {field: value for field, value in record["spec"].items() if field != "holderIdentity"}
    return {**record, "spec": spec | {"leaseDurationSeconds": 1, "acquireTime": time, "renewTime": time}}


def holder_of(record: Object) -> str | None:
    return record["spec"].get("holderIdentity") or None


def micro_time() -> str:
    return now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
