"""The stand-in's programs killed at any moment, and two virt-controllers at once, on a running cluster.

The seed of the random moments is fixed; VIRTFLOW_TEST_SEED is another one.
"""

import contextlib
import os
import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import psutil
import pytest

from clusters.local import LocalCluster
from clusters.supervisor import Supervisor
from tests.integration.audit_support import Written, succeeded, unanswered
from tests.integration.support import PATIENCE, Tenant, make_template, tenant_on
from virtflow.kube import Informer, KubeError, Object
from virtflow.kube.resources import LEASES, PODS, VMIRS, VMIS, VMS

pytestmark = pytest.mark.anyio
SEED = int(os.environ.get("VIRTFLOW_TEST_SEED", "1790"))
KILLS, MACHINES, MOST_REPLICAS = 50, 20, 8
SET = "test-vmirs"
VICTIMS = ("virt-controller", "virt-handler", "virt-api")
QUIET = timedelta(seconds=2)
"""After which nothing more is expected to change by itself before the next kill."""


class Doomed:
    """A program of the cluster, taken from its supervisor: killed and started again by the test."""

    def __init__(self, cluster: LocalCluster, name: str, log: Path) -> None:
        self.name = name
        self._supervisor = Supervisor(cluster.folder)
        (pid,) = (component.pid for component in cluster.status() if component.name == name)
        self._process = psutil.Process(pid)
        self._command = self._process.cmdline()
        self._log = log
        self._supervisor.stop_program(name)
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = psutil.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def give_back(self) -> None:
        self.kill()
        self._supervisor.start(self.name)


@pytest.fixture
async def tenant(kubeconfig: Path) -> AsyncIterator[Tenant]:
    async with tenant_on(kubeconfig) as tenant:
        yield tenant


@pytest.fixture
def doomed(cluster: LocalCluster, tmp_path: Path) -> Iterator[dict[str, Doomed]]:
    with contextlib.ExitStack() as stack:
        # Returns when all of it answers again.
        stack.callback(cluster.up)
        programs = {}
        for name in VICTIMS:
            programs[name] = Doomed(cluster, name, tmp_path / f"{name}.log")
            stack.callback(programs[name].give_back)
        yield programs


class Wishes:
    """What people ask for: virtual machines that run, are stopped or are not there, and a set of some size."""

    def __init__(self, tenant: Tenant, chance: random.Random) -> None:
        self._tenant = tenant
        self._chance = chance
        self.strategies: dict[str, str | None] = {}
        self.replicas = [3]

    async def begin(self) -> None:
        template = make_template("scale")
        spec = {"replicas": 3, "selector": {"matchLabels": {"app": "scale"}}, "template": template}
        kube, namespace = self._tenant.kube, self._tenant.namespace
        await accepted(lambda: kube.create(VMIRS, {"metadata": {"name": SET}, "spec": spec}, namespace))
        for number in range(MACHINES):
            await self._want(f"vm-{number:02}", "Always")

    async def change_one(self) -> None:
        if self._chance.random() < 0.2:
            self.replicas.append(self._chance.randint(0, MOST_REPLICAS))
            patch = {"spec": {"replicas": self.replicas[-1]}}
            kube, namespace = self._tenant.kube, self._tenant.namespace
            await accepted(lambda: kube.patch(VMIRS, SET, patch, namespace, subresource="scale"))
        else:
            name = self._chance.choice(sorted(self.strategies))
            await self._want(name, self._chance.choice(["Always", "Always", "Halted", None]))

    async def settle_for(self) -> None:
        """Wishes that stay: every machine is there again."""
        for name in self.strategies:
            await self._want(name, self._chance.choice(["Always", "Halted"]))

    async def _want(self, name: str, strategy: str | None) -> None:
        kube, namespace = self._tenant.kube, self._tenant.namespace
        self.strategies[name] = strategy
        if strategy is None:
            await accepted(lambda: kube.delete(VMS, name, namespace))
            return
        spec = {"runStrategy": strategy, "template": make_template("single")}
        while True:
            there = self._tenant.get(VMS, name)
            with contextlib.suppress(Late):
                if there is None:
                    await accepted(lambda: kube.create(VMS, {"metadata": {"name": name}, "spec": spec}, namespace))
                    return
                if "deletionTimestamp" not in there["metadata"]:
                    await accepted(lambda: kube.patch(VMS, name, {"spec": {"runStrategy": strategy}}, namespace))
                    return
            # One that was deleted is in the way until it is gone.
            await self._tenant.until(lambda: self._tenant.get(VMS, name) is not there)  # noqa: B023

    def are_met(self) -> bool:
        """And by nothing else than what they need."""
        return (
            all(self._is_met(name, strategy) for name, strategy in self.strategies.items())
            and self._has_its_members()
            and len(self._tenant.all(VMIS)) == self._running() + self.replicas[-1]
            and sorted(map(controller, self._tenant.all(PODS))) == sorted(map(uid, self._tenant.all(VMIS)))
            and all(vmi["status"]["phase"] == "Running" for vmi in self._tenant.all(VMIS))
        )

    def _running(self) -> int:
        return list(self.strategies.values()).count("Always")

    def _is_met(self, name: str, strategy: str | None) -> bool:
        vm, vmi = self._tenant.get(VMS, name), self._tenant.get(VMIS, name)
        if vm is None or strategy is None:
            return vm is None and vmi is None and strategy is None
        status = vm.get("status", {})
        if strategy == "Halted":
            return vmi is None and status.get("printableStatus") == "Stopped" and "created" not in status
        return vmi is not None and controller(vmi) == uid(vm) and status.get("printableStatus") == "Running"

    def _has_its_members(self) -> bool:
        vmirs = self._tenant.get(VMIRS, SET)
        assert vmirs is not None
        status, own = (
            vmirs.get("status", {}),
            [vmi for vmi in self._tenant.all(VMIS) if controller(vmi) == uid(vmirs)],
        )
        counts = (status.get("replicas", 0), status.get("readyReplicas", 0), len(own))
        return counts == (self.replicas[-1],) * 3 and "conditions" not in status


class Late(Exception):  # noqa: N818
    """What was to be changed is another one by now."""


async def accepted(request: Callable[[], Awaitable[object]]) -> None:
    """Once the webhooks answer again. Raises `Late`."""
    with anyio.fail_after(PATIENCE.total_seconds()):
        while True:
            try:
                await request()
            except KubeError as error:
                if error.code in (404, 409):
                    raise Late from error
                if "failed calling webhook" not in error.message:
                    raise
            else:
                return
            await anyio.sleep(0.05)


def uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def controller(obj: Object) -> str:
    (owner,) = obj["metadata"]["ownerReferences"]
    return str(owner["uid"])


async def test_killed_at_fifty_random_moments_it_comes_to_the_same_end(
    tenant: Tenant, doomed: dict[str, Doomed], audit_log: Path
) -> None:
    chance = random.Random(SEED)
    wishes = Wishes(tenant, chance)
    await wishes.begin()
    for _ in range(KILLS):
        for _ in range(chance.randint(1, 3)):
            await wishes.change_one()
        # The moment is so many changes later: while nothing leads nothing changes, so most are in the midst of work.
        moment = tenant.changes + chance.randrange(40)
        with contextlib.suppress(TimeoutError):
            await tenant.until(lambda: tenant.changes >= moment, QUIET)  # noqa: B023
        (victim,) = chance.choices([doomed[name] for name in VICTIMS], weights=[7, 2, 1])
        victim.kill()
        victim.start()
    await wishes.settle_for()
    await tenant.until(wishes.are_met, 3 * PATIENCE)
    writes = list(succeeded(audit_log, tenant.namespace))
    made = [each for each in writes if (each.verb, each.resource) == ("create", VMIS.plural)]
    of_set = [each for each in made if each.name.startswith(SET)]
    pods = Counter(each.owner for each in writes if (each.verb, each.resource) == ("create", PODS.plural))
    starts = Counter((each.owner, generation(each)) for each in made if each not in of_set)
    assert len(made) >= MACHINES
    unknown = pods.keys() - {each.uid for each in made}
    assert len(unknown) <= unanswered(audit_log, tenant.namespace, VMIS.plural), f"seed {SEED}"
    assert {owner: count for owner, count in pods.items() if count > 1} == {}, f"seed {SEED}"
    assert {start: count for start, count in starts.items() if count > 1} == {}, f"seed {SEED}"
    assert most_at_once(writes, {each.name for each in of_set}) <= max(wishes.replicas), f"seed {SEED}"


def generation(write: Written) -> str:
    return str(write.answer["metadata"]["annotations"]["kubevirt.io/vm-generation"])


def most_at_once(writes: list[Written], names: set[str]) -> int:
    """How many of these there were at most that virt-controller had made and not yet deleted."""
    most, there = 0, set()
    for write in writes:
        if write.resource == VMIS.plural and write.name in names:
            if write.verb == "create":
                there.add(write.name)
            elif write.verb == "delete":
                there.discard(write.name)
        most = max(most, len(there))
    return most


async def test_of_two_instances_one_leads_and_the_other_takes_over(
    cluster: LocalCluster, tenant: Tenant, tmp_path: Path
) -> None:
    supervisor, log = Supervisor(cluster.folder), tmp_path / "second.log"
    (pid,) = (component.pid for component in cluster.status() if component.name == "virt-controller")
    command = psutil.Process(pid).cmdline()
    command[command.index("--identity=virt-controller-0")] = "--identity=second"
    leases = Informer(tenant.kube, LEASES, namespace="kubevirt")
    async with leases.running():
        before = leases.get("kubevirt", "virt-controller")
        assert before is not None
        with log.open("wb") as output:
            second = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            with anyio.fail_after(PATIENCE.total_seconds()):
                # A file tells nobody that it has grown.
                while b"second waits while virt-controller-0 leads" not in log.read_bytes():  # noqa: ASYNC110
                    await anyio.sleep(0.1)
            await set_strategy(tenant, "Always")
            await tenant.until(lambda: status(tenant).get("printableStatus") == "Running")
            supervisor.stop_program("virt-controller")
            await wait_for_leader(leases, "second")
            await set_strategy(tenant, "Halted")
            await tenant.until(lambda: status(tenant).get("printableStatus") == "Stopped")
        finally:
            second.terminate()
            supervisor.start("virt-controller")
        assert second.wait() == 0
        after = await wait_for_leader(leases, "virt-controller-0")
    assert after["leaseTransitions"] == before["spec"]["leaseTransitions"] + 2


async def wait_for_leader(leases: Informer, identity: str) -> Object:
    def leads(lease: Object | None) -> bool:
        return lease is not None and lease["spec"].get("holderIdentity") == identity

    with anyio.fail_after(PATIENCE.total_seconds()):
        lease = await leases.wait_for("kubevirt", "virt-controller", leads)
    assert lease is not None
    spec: Object = lease["spec"]
    return spec


async def set_strategy(tenant: Tenant, strategy: str) -> None:
    spec = {"runStrategy": strategy, "template": make_template("single")}
    body = {"metadata": {"name": "test-vm"}, "spec": spec}
    await tenant.kube.apply(VMS, body, tenant.namespace)


def status(tenant: Tenant) -> Object:
    found: Object = (tenant.get(VMS, "test-vm") or {}).get("status", {})
    return found


async def test_the_next_process_of_an_identity_goes_on_with_its_lease(cluster: LocalCluster, tenant: Tenant) -> None:
    leases = Informer(tenant.kube, LEASES, namespace="kubevirt")
    async with leases.running():
        before = await wait_for_leader(leases, "virt-controller-0")
        (pid,) = (component.pid for component in cluster.status() if component.name == "virt-controller")
        psutil.Process(pid).kill()
        with anyio.fail_after(PATIENCE.total_seconds()):
            after = await leases.wait_for(
                "kubevirt",
                "virt-controller",
                lambda lease: lease is not None and lease["spec"]["acquireTime"] != before["acquireTime"],
            )
    assert after is not None
    assert after["spec"]["holderIdentity"] == "virt-controller-0"
    assert after["spec"]["leaseTransitions"] == before["leaseTransitions"]
    await set_strategy(tenant, "Always")
    await tenant.until(lambda: status(tenant).get("printableStatus") == "Running")
