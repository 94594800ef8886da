"""Activities that note their calls instead of touching a world."""

import asyncio
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from workflows.models import (
    AutoscalerSpec,
    CreateEvidence,
    GatewayAnswer,
    GatewayRequest,
    LoadOutcome,
    LoadRun,
    LoadStretch,
    ObservedArrow,
    ReplicaSetRef,
    ReplicasWait,
    ScaleDecision,
    ScaleState,
    SettleWait,
    Tenant,
    TenantOrder,
    VirtualMachineRef,
    VirtualMachineState,
    VirtualMachineWait,
)

__all__ = ["ORDER", "TENANT", "World", "refused"]

ORDER = TenantOrder("tenant-a", "tenant-a-1", {"virtflow.io/run": "r"})
TENANT = Tenant("tenant-a", "tenant-a-1", "tenant-a-user")
STRETCH = LoadStretch(100, 0, timedelta(milliseconds=50), timedelta(milliseconds=60), timedelta(milliseconds=70))


def refused(message: str) -> ApplicationError:
    return ApplicationError(message, type="Refused", non_retryable=True)


class World:
    """Set the attributes to make things go wrong; read `calls` to see what was asked, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.code = 201
        self.tenant_fails = False
        self.undo_fails = False
        self.hangs = False
        self.settle_fails = False
        self.load_ends = asyncio.Event()
        self.turn = asyncio.Event()
        self.turn.set()
        self.queued = asyncio.Event()
        self.running = asyncio.Event()
        self.undoing = asyncio.Event()
        self.may_undo = asyncio.Event()
        self.may_undo.set()

    @activity.defn
    async def create_tenant(self, order: TenantOrder) -> Tenant:
        self.calls.append("create_tenant")
        if self.tenant_fails:
            raise refused("no room")
        return Tenant(order.name, order.namespace, f"{order.name}-user")

    @activity.defn
    async def delete_tenant(self, order: TenantOrder) -> None:
        self.calls.append(f"delete_tenant {order.namespace}")
        self.undoing.set()
        while not self.may_undo.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        if self.undo_fails:
            raise refused("it hangs on a finalizer")

    @activity.defn
    async def send(self, request: GatewayRequest) -> GatewayAnswer:
        self.calls.append(f"send {request.verb}")
        metadata = {"namespace": request.tenant.namespace, "name": "vm", "uid": "u1"}
        return GatewayAnswer(self.code, {"metadata": metadata}, [], "id")

    @activity.defn
    async def await_running(self, _wait: VirtualMachineWait) -> VirtualMachineState:
        self.calls.append("await_running")
        self.running.set()
        try:
            while self.hangs:
                activity.heartbeat()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.calls.append("await_running cancelled")
            raise
        return VirtualMachineState("Running", True, "Running", "node-1")

    @activity.defn
    async def observe_create_sequence(self, evidence: CreateEvidence) -> list[ObservedArrow]:
        assert evidence == CreateEvidence(VirtualMachineRef("tenant-a-1", "vm", "u1"), "id", TENANT)
        self.calls.append("observe_create_sequence")
        return [ObservedArrow(4, "create VirtualMachine", "gateway", observed=True, after=timedelta())]

    @activity.defn
    async def list_names(self, _namespace: str) -> list[str]:
        self.calls.append("list_names")
        return ["vm"]

    @activity.defn
    async def read_autoscaler(self, _target: ReplicaSetRef) -> AutoscalerSpec:
        self.calls.append("read_autoscaler")
        return AutoscalerSpec(1, 10, 70)

    @activity.defn
    async def await_replicas(self, wait: ReplicasWait) -> ScaleState:
        self.calls.append(f"await_replicas {wait.replicas}")
        return ScaleState(wait.replicas, wait.replicas, wait.replicas, 5)

    @activity.defn
    async def await_settled(self, _wait: SettleWait) -> ScaleState:
        self.calls.append("await_settled")
        self.running.set()
        if self.settle_fails:
            raise refused("it never scaled")
        while self.hangs:
            activity.heartbeat()
            await asyncio.sleep(0.05)
        return ScaleState(4, 4, 4, 69)

    @activity.defn
    async def run_load(self, _run: LoadRun) -> LoadOutcome:
        self.calls.append("run_load")
        while not self.load_ends.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        self.calls.append("load ended")
        return LoadOutcome(STRETCH, STRETCH, STRETCH, 0, resumed=False, restarted=False, waited=timedelta())

    @activity.defn
    async def await_load(self, _run: LoadRun) -> timedelta:
        self.calls.append("await_load")
        self.queued.set()
        while not self.turn.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        return timedelta()

    @activity.defn
    async def stop_load(self, _run: LoadRun) -> None:
        self.calls.append("stop_load")
        self.load_ends.set()

    @activity.defn
    async def observe_scale_decisions(self, _target: ReplicaSetRef) -> list[ScaleDecision]:
        self.calls.append("observe_scale_decisions")
        return [ScaleDecision(timedelta(), 1, 4, 200, 70, followed=True)]

    @property
    def activities(self) -> tuple[object, ...]:
        return (
            self.create_tenant,
            self.delete_tenant,
            self.send,
            self.await_running,
            self.observe_create_sequence,
            self.list_names,
            self.read_autoscaler,
            self.await_replicas,
            self.await_settled,
            self.run_load,
            self.await_load,
            self.stop_load,
            self.observe_scale_decisions,
        )
