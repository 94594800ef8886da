"""Activities that note their calls instead of touching a world."""

import asyncio
from datetime import UTC, datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from workflows.access_models import (
    AccessMatrix,
    AccessOrder,
    AccessRow,
    AccessTable,
    AccessTotals,
    AuditEvidence,
    Door,
    DoorAnswer,
    DoorRequest,
    Hole,
    LoggedReason,
    Outcome,
    SecretOrder,
    WithdrawnToken,
    WithdrawnTokenOrder,
)
from workflows.models import (
    AutoscalerSpec,
    CreateEvidence,
    GatewayAnswer,
    GatewayRequest,
    LoadOutcome,
    LoadRun,
    LoadStretch,
    ObservedArrow,
    ReplicaSetOrder,
    ReplicaSetRef,
    ReplicasWait,
    ScaleDecision,
    ScaleState,
    SettleWait,
    VirtualMachineRef,
    VirtualMachineState,
    VirtualMachineWait,
)
from workflows.quota_models import Strain, StuckWait
from workflows.tenant_models import Tenant, TenantOrder

__all__ = ["ORDER", "TENANT", "World", "refused"]

ORDER = TenantOrder("tenant-a", "tenant-a-1", {"virtflow.io/run": "r"})
TENANT = Tenant("tenant-a", "tenant-a-1", ["tenant-a-user"])
START = datetime(2026, 11, 23, 10, tzinfo=UTC)
STRETCH = LoadStretch(100, 0, timedelta(milliseconds=50), timedelta(milliseconds=60), timedelta(milliseconds=70))


MATRIX = AccessMatrix(
    [AccessTable("tenant-a", [AccessRow("pods", "own", "✓ ", "✗·")])],
    AccessTotals(cells=2, requests=4, holes=1),
    [
        Hole(
            "tenant-a-user",
            "get",
            "pods",
            "own",
            Door.KUBE_APISERVER,
            Outcome.ALLOWED,
            Outcome.DENIED,
            403,
            "forbidden",
        )
    ],
    AuditEvidence(3, 1, ["the audit log says otherwise"], ["a stray"]),
)


def refused(message: str) -> ApplicationError:
    return ApplicationError(message, type="Refused", non_retryable=True)


class World:
    """Set the attributes to make things go wrong; read `calls` to see what was asked, in order.

    Each attribute names one activity. `scale_in` is the second `await_replicas`, the one after the load.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.made: list[str] = []
        """Namespaces of the tenants that were made, in order."""
        self.code = 201
        self.fails = ""
        """Is refused. Of `create_tenant` it may also be a namespace."""
        self.hangs = ""
        """Goes on until it is cancelled."""
        self.is_deaf = ""
        """Does not hear of its cancellation, and ends well once `may_end` is set."""
        self.load_ends = asyncio.Event()
        self.reached = asyncio.Event()
        """Set by whichever hangs or is deaf."""
        self.may_end = asyncio.Event()

    async def _act(self, call: str, name: str = "") -> None:
        self.calls.append(call)
        name = name or call.partition(" ")[0]
        if name == self.fails:
            raise refused(f"{name} is refused")
        if name == self.is_deaf:
            self.reached.set()
            await self.may_end.wait()
        if name == self.hangs:
            self.reached.set()
            try:
                await self._until(asyncio.Event())
            except asyncio.CancelledError:
                self.calls.append(f"{name} cancelled")
                raise

    async def _until(self, event: asyncio.Event) -> None:
        while not event.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)

    @activity.defn
    async def create_tenant(self, order: TenantOrder) -> Tenant:
        await self._act("create_tenant", order.namespace if order.namespace in (self.fails, self.hangs) else "")
        self.made.append(order.namespace)
        return Tenant(order.name, order.namespace, [f"{order.name}-user"])

    @activity.defn
    async def delete_tenant(self, order: TenantOrder) -> None:
        await self._act(f"delete_tenant {order.namespace}")

    @activity.defn
    async def send(self, request: GatewayRequest) -> GatewayAnswer:
        await self._act(f"send {request.verb}")
        if self.code != 201:
            return GatewayAnswer(self.code, {"reason": "Forbidden", "message": "exceeded quota"}, [], "id")
        metadata = {"namespace": request.tenant.namespace, "name": "vm", "uid": "u1"}
        return GatewayAnswer(self.code, {"metadata": metadata}, [], "id")

    @activity.defn
    async def await_running(self, _wait: VirtualMachineWait) -> VirtualMachineState:
        await self._act("await_running")
        return VirtualMachineState("Running", True, "Running", "node-1")

    @activity.defn
    async def observe_create_sequence(self, evidence: CreateEvidence) -> list[ObservedArrow]:
        assert evidence == CreateEvidence(VirtualMachineRef("tenant-a-1", "vm", "u1"), "id", TENANT)
        await self._act("observe_create_sequence")
        return [ObservedArrow(4, "create VirtualMachine", "gateway", observed=True, after=timedelta(), at=START)]

    @activity.defn
    async def list_names(self, _namespace: str) -> list[str]:
        await self._act("list_names")
        return ["vm"]

    @activity.defn
    async def create_replica_set(self, order: ReplicaSetOrder) -> ReplicaSetRef:
        await self._act("create_replica_set")
        return ReplicaSetRef(order.namespace, "vmirs", "hpa")

    @activity.defn
    async def read_autoscaler(self, _target: ReplicaSetRef) -> AutoscalerSpec:
        await self._act("read_autoscaler")
        return AutoscalerSpec(1, 10, 70)

    @activity.defn
    async def await_replicas(self, wait: ReplicasWait) -> ScaleState:
        await self._act(f"await_replicas {wait.replicas}", "scale_in" if self.load_ends.is_set() else "")
        return ScaleState(wait.replicas, wait.replicas, wait.replicas, 5)

    @activity.defn
    async def await_settled(self, _wait: SettleWait) -> ScaleState:
        await self._act("await_settled")
        return ScaleState(4, 4, 4, 69)

    @activity.defn
    async def await_stuck(self, _wait: StuckWait) -> Strain:
        await self._act("await_stuck")
        return Strain(4, 3, 2, 1, ["exceeded quota"], is_quota=True)

    @activity.defn
    async def run_load(self, _run: LoadRun) -> LoadOutcome:
        await self._act("run_load")
        await self._until(self.load_ends)
        self.calls.append("load ended")
        return LoadOutcome(STRETCH, STRETCH, STRETCH, 0, resumed=False, restarted=False, waited=timedelta())

    @activity.defn
    async def await_load(self, _run: LoadRun) -> timedelta:
        await self._act("await_load")
        return timedelta()

    @activity.defn
    async def stop_load(self, _run: LoadRun) -> None:
        await self._act("stop_load")
        self.load_ends.set()

    @activity.defn
    async def observe_scale_decisions(self, _target: ReplicaSetRef) -> list[ScaleDecision]:
        await self._act("observe_scale_decisions")
        return [ScaleDecision(START, 1, 4, 200, 70, followed=True)]

    @activity.defn
    async def try_everything(self, order: AccessOrder) -> AccessMatrix:
        assert order == AccessOrder([TENANT], [TENANT])
        await self._act("try_everything")
        return MATRIX

    @activity.defn
    async def request_at_door(self, request: DoorRequest) -> DoorAnswer:
        await self._act(f"request_at_door {request.door}")
        return DoorAnswer(403, "Forbidden", "no", "id")

    @activity.defn
    async def create_secret(self, order: SecretOrder) -> None:
        await self._act(f"create_secret {order.name}")

    @activity.defn
    async def withdraw_token(self, order: WithdrawnTokenOrder) -> WithdrawnToken:
        await self._act(f"withdraw_token {order.withdrawal}")
        return WithdrawnToken(200, GatewayAnswer(401, {}, [], "id"), timedelta(seconds=9))

    @activity.defn
    async def read_logs(self, request_id: str) -> LoggedReason:
        await self._act(f"read_logs {request_id}")
        return LoggedReason("unauthenticated", "why", 0, [])

    @property
    def activities(self) -> tuple[object, ...]:
        return (
            self.create_tenant,
            self.delete_tenant,
            self.send,
            self.await_running,
            self.observe_create_sequence,
            self.list_names,
            self.create_replica_set,
            self.read_autoscaler,
            self.await_replicas,
            self.await_settled,
            self.await_stuck,
            self.run_load,
            self.await_load,
            self.stop_load,
            self.observe_scale_decisions,
            self.try_everything,
            self.request_at_door,
            self.create_secret,
            self.withdraw_token,
            self.read_logs,
        )
