"""What the stand-in's programs may do is what they do."""

import asyncio
from typing import Any

from clusters.kubevirt.install import RULES
from tests.unit.simulated_apiserver import ApiServer, split
from tests.unit.simulated_programs import INSTANCES, REPLICA_SETS, fresh, running
from tests.unit.virt_controller_support import make_vm, make_vmi, make_vmirs
from tests.unit.virtual_time import run_in_virtual_time, virtual_now
from virtflow.kube import Response

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get"}
PROGRAMS = ("kubevirt-controller", "kubevirt-handler")
RARE = {
    # What a create is answered with that had been done already, and whether a set, or an instance, is there still.
    *((plural, "get") for plural in ("pods", INSTANCES, REPLICA_SETS, "virtualmachines", "controllerrevisions")),
    # Of an Event that another life of the process has counted.
    ("events", "get"),
    # Asked of whoever makes somebody the owner of what blocks its deletion.
    *((f"{plural}/finalizers", "update") for plural in ("virtualmachines", INSTANCES, REPLICA_SETS)),
    # A VM whose template has changed.
    ("virtualmachines", "patch"),
    ("virtualmachines/status", "patch"),
}


class Recording(ApiServer):
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__(clock=virtual_now)
        self.asked: set[tuple[str, str]] = set()

    async def send(self, method: str, path: str, **kwargs: Any) -> Response:
        plural, _, name, subresource = split(path)
        resource = plural if subresource is None else f"{plural}/{subresource}"
        self.asked.add((resource, "list" if method == "GET" and name is None else VERBS[method]))
        return await super().send(method, path, **kwargs)


def test_nothing_is_granted_that_is_not_used() -> None:
    run_in_virtual_time(lives())


async def lives() -> None:
    server = Recording()
    async with running(server):
        await server.add("virtualmachines", fresh(make_vm()))
        orphan = fresh(make_vmi("Pending"))
        orphan["metadata"].pop("ownerReferences", None)
        orphan["metadata"] |= {
            "name": "orphan",
            "uid": "orphan",
            "labels": make_vmirs(1)["spec"]["selector"]["matchLabels"],
        }
        await server.add(INSTANCES, orphan)
        await server.add(REPLICA_SETS, fresh(make_vmirs(2)))
        await asyncio.sleep(30)
        await server.edit("virtualmachines", "test-vm", {"runStrategy": "Halted"})
        await server.edit(REPLICA_SETS, "test-vmirs", {"replicas": 1})
        await asyncio.sleep(30)
        await server.edit("virtualmachines", "test-vm", {"runStrategy": "Always"})
        await asyncio.sleep(30)
        await server.fail_node("node-1")
        await asyncio.sleep(600)
        await server.remove("virtualmachines", "test-vm")
        await asyncio.sleep(60)
    of_leases = {(plural, verb) for plural, verb in server.asked if plural == "leases"}
    granted = {
        (resource, verb)
        for name in PROGRAMS
        for rule in RULES[name]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    listed = {plural for plural, verb in server.asked if verb == "list"}
    used = server.asked - of_leases | {(plural, "watch") for plural in listed}
    assert used - granted == set()
    assert granted - used - RARE == set()
