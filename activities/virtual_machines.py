"""What the cluster says of virtual machines, from one shared list and watch for each kind."""

import asyncio
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.causes import Causes
from activities.deadline import time_left
from activities.errors import gave_up, refusals_are_final
from activities.heartbeat import heartbeating
from virtflow.kube import Informer, KubeClient, Object
from virtflow.kube.resources import PODS, VMS
from workflows.fault_models import Instance, RecoveryWait
from workflows.models import VirtualMachineRef, VirtualMachineState, VirtualMachineWait
from workflows.quota_models import ReasonWait

__all__ = ["VirtualMachines"]


SECOND = timedelta(seconds=1)


class VirtualMachines:
    """Reads as the platform's administrator."""

    def __init__(self, kube: KubeClient, machines: Informer, instances: Informer) -> None:
        self._kube = kube
        self._causes = Causes(kube)
        self._machines = machines
        self._instances = instances

    @activity.defn
    async def await_running(self, wait: VirtualMachineWait) -> VirtualMachineState:
        """Wait until this very machine's printableStatus is Running and it is ready; say why if it does not."""
        machine = wait.machine

        async with heartbeating():
            try:
                async with asyncio.timeout(time_left(wait.within).total_seconds()):
                    await self._machines.wait_for(machine.namespace, machine.name, lambda vm: is_running(vm, machine))
            except TimeoutError:
                raise await self._gave_up(machine, "run", wait.within) from None
        return self._state(machine)

    @activity.defn
    async def await_recovery(self, wait: RecoveryWait) -> Instance:
        """Wait until this very machine runs and is ready in another life than the one before."""
        machine = wait.machine

        def lives(vmi: Object | None) -> bool:
            if vmi is None or vmi["metadata"]["uid"] == wait.before.uid:
                return False
            return bool(vmi.get("status", {}).get("phase") == "Running")

        async with heartbeating():
            try:
                async with asyncio.timeout(time_left(wait.within).total_seconds()):
                    # The instance first: what the machine says may still be of its life before.
                    vmi = await self._instances.wait_for(machine.namespace, machine.name, lives)
                    await self._machines.wait_for(machine.namespace, machine.name, lambda vm: is_running(vm, machine))
            except TimeoutError:
                raise await self._gave_up(machine, "run again", wait.within) from None
        assert vmi is not None
        return Instance(vmi["metadata"]["uid"], vmi["status"].get("nodeName", ""))

    @activity.defn
    async def await_reason(self, wait: ReasonWait) -> str:
        """Wait until a condition of this very machine says the words, and return all that it says."""
        machine = wait.machine

        def said(vm: Object | None) -> str:
            if vm is None or vm["metadata"]["uid"] != machine.uid:
                return ""
            messages = (condition.get("message", "") for condition in vm.get("status", {}).get("conditions", []))
            return next((message for message in messages if wait.words in message), "")

        async with heartbeating():
            try:
                async with asyncio.timeout(time_left(wait.within).total_seconds()):
                    return said(
                        await self._machines.wait_for(machine.namespace, machine.name, lambda vm: bool(said(vm)))
                    )
            except TimeoutError:
                raise await self._gave_up(machine, f"say {wait.words!r}", wait.within) from None

    @activity.defn
    async def read_launcher_limits(self, machine: VirtualMachineRef) -> dict[str, str]:
        """Of the container that holds the guest; empty while there is none."""
        with refusals_are_final():
            pods = await self._kube.list(
                PODS, machine.namespace, selector=f"vm.kubevirt.io/name={machine.name},kubevirt.io=virt-launcher"
            )
        return {
            resource: amount
            for pod in pods
            for container in pod["spec"]["containers"]
            if container["name"] == "compute"
            for resource, amount in container["resources"].get("limits", {}).items()
        }

    @activity.defn
    async def list_names(self, namespace: str) -> list[str]:
        with refusals_are_final():
            return [vm["metadata"]["name"] for vm in await self._kube.list(VMS, namespace)]

    def _state(self, machine: VirtualMachineRef) -> VirtualMachineState:
        vm = self._machines.get(machine.namespace, machine.name) or {}
        vmi = self._instances.get(machine.namespace, machine.name) or {}
        status, instance = vm.get("status", {}), vmi.get("status", {})
        return VirtualMachineState(
            printable_status=status.get("printableStatus", ""),
            ready=bool(status.get("ready")),
            phase=instance.get("phase", ""),
            node=instance.get("nodeName", ""),
        )

    async def _gave_up(self, machine: VirtualMachineRef, what: str, within: timedelta) -> ApplicationError:
        vm, instance = (each.get(machine.namespace, machine.name) for each in (self._machines, self._instances))
        cause = await self._causes.of_machine(machine, vm, instance)
        state = self._state(machine)
        return gave_up(
            f"VirtualMachine {machine.namespace}/{machine.name} did not {what} within {within / SECOND:.0f} s: "
            f"{cause}. It is {state.printable_status or 'nothing yet'}, its instance {state.phase or 'nothing yet'}."
        )


def is_running(vm: Object | None, machine: VirtualMachineRef) -> bool:
    # The watch may not have shown the create yet: absence is no news. Another uid is another machine.
    if vm is None or vm["metadata"]["uid"] != machine.uid:
        return False
    status = vm.get("status", {})
    return status.get("printableStatus") == "Running" and bool(status.get("ready"))
