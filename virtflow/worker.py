"""The Temporal worker: runs workflows and activities against one cluster. `python -m virtflow.worker FILE`."""

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path

import aiohttp
import uvloop
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.access import Access
from activities.autoscaling import Autoscaling
from activities.doors import Doors
from activities.evidence import Evidence
from activities.faults import Faults
from activities.gateway import Gateway
from activities.heartbeat import HEARTBEAT_EVERY
from activities.load import Load
from activities.outages import Outages
from activities.tenants import Tenants
from activities.tokens import Tokens
from activities.virtual_machines import VirtualMachines
from clusters.endpoints import Endpoints
from clusters.faults import Programs
from virtflow.kube import Informer, KubeClient
from virtflow.kube.resources import HPAS, NAMESPACES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, VMIRS, VMIS, VMS
from virtflow.sequence.records import Records
from virtflow.temporal import TASK_QUEUE, connect
from workflows.autoscale import AutoscaleUnderLoad, PressAutoscaler
from workflows.create_vm import CreateVirtualMachine
from workflows.options import OUTAGES
from workflows.scenario import Scenario
from workflows.tenant_journey import TenantJourney

__all__ = ["WORKFLOWS", "main"]

WORKFLOWS = [AutoscaleUnderLoad, CreateVirtualMachine, PressAutoscaler, Scenario, TenantJourney]
WATCHED = (NAMESPACES, SERVICE_ACCOUNTS, RESOURCE_QUOTAS, VMS, VMIS, VMIRS, HPAS)

MAX_ACTIVITIES = 2000
"""A wait holds its slot for as long as it takes, and costs no more than an event in memory: with the default of 100,
a hundred tenants that wait would keep every quick request, and every clean-up, from its turn."""
MAX_CACHED_WORKFLOWS = 4000
"""A journey and its child each. One that is dropped from the cache is replayed from its start at its next step."""


async def run(endpoints_file: Path) -> None:
    """Work until SIGTERM or SIGINT; then let running activities finish or be cancelled, and leave."""
    endpoints = Endpoints.load(endpoints_file)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await KubeClient.connect(endpoints.kubeconfig))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        temporal = await connect(endpoints)
        outages = Outages(kube, Programs(endpoints_file.parent))
        # Before what needs a kube-apiserver to start: one that was taken down is brought back by this.
        await stack.enter_async_context(
            Worker(
                temporal,
                task_queue=OUTAGES,
                activities=[outages.hold_down, outages.await_down, outages.bring_back],
                max_heartbeat_throttle_interval=HEARTBEAT_EVERY,
            )
        )
        informers = {resource: Informer(kube, resource) for resource in WATCHED}
        for informer in informers.values():
            await stack.enter_async_context(informer.running())
        tokens = Tokens(kube)
        tenants = Tenants(
            kube, tokens, informers[NAMESPACES], informers[SERVICE_ACCOUNTS], informers[RESOURCE_QUOTAS]
        )
        gateway = Gateway(kube, http, endpoints, tokens)
        access = Access(kube, Doors(kube, http, endpoints), tokens, endpoints)
        machines = VirtualMachines(kube, informers[VMS], informers[VMIS])
        autoscaling = Autoscaling(
            kube, informers[VMIRS], informers[HPAS], informers[VMIS], informers[RESOURCE_QUOTAS]
        )
        load = Load(endpoints, endpoints_file.parent / "load")
        records = stack.enter_context(contextlib.closing(Records(endpoints.audit_log, endpoints.access_log)))
        evidence = Evidence(kube, records)
        faults = Faults(kube)
        worker = Worker(
            temporal,
            task_queue=TASK_QUEUE,
            workflows=WORKFLOWS,
            # The sandbox, which imports a workflow's modules anew and guards each step, takes longer than all the
            # steps do. It has refused what is not deterministic in the tests, which run the same code in it.
            workflow_runner=UnsandboxedWorkflowRunner(),
            activities=[
                tenants.create_tenant,
                tenants.delete_tenant,
                gateway.send,
                gateway.withdraw_token,
                access.try_everything,
                access.request_at_door,
                access.create_secret,
                access.read_logs,
                machines.await_running,
                machines.list_names,
                machines.await_recovery,
                machines.await_reason,
                machines.read_launcher_limits,
                autoscaling.create_replica_set,
                autoscaling.read_autoscaler,
                autoscaling.await_replicas,
                autoscaling.await_settled,
                autoscaling.await_stuck,
                load.run,
                load.await_begin,
                load.stop,
                evidence.observe_create_sequence,
                evidence.observe_scale_decisions,
                evidence.observe_tries,
                evidence.observe_recovery,
                evidence.observe_outage,
                faults.read_instance,
                faults.fail_node,
                faults.mend_node,
                faults.kill_launcher,
            ],
            # Else an error that is none of Temporal's own retries the workflow's task for ever.
            workflow_failure_exception_types=[Exception],
            max_heartbeat_throttle_interval=HEARTBEAT_EVERY,
            max_concurrent_activities=MAX_ACTIVITIES,
            max_cached_workflows=MAX_CACHED_WORKFLOWS,
        )
        await stack.enter_async_context(worker)
        logging.getLogger(__name__).info("working on %s for cluster %s", TASK_QUEUE, endpoints.name)
        await stop.wait()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvloop.run(run(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
