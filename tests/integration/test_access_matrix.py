"""The whole matrix on a real cluster: of roles that nobody thought of, of a hole that is really there, of tokens.

Not here: what a role allows and what an answer says (tests/unit/test_access_*.py).
"""

import asyncio
import contextlib
import dataclasses
import itertools
import random
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
import pytest
from temporalio.testing import ActivityEnvironment

from activities.access import Access
from activities.doors import Doors
from activities.gateway import Gateway
from activities.tenants import Tenants
from activities.tokens import Tokens
from clusters.endpoints import Endpoints
from virtflow.access.matrix import TARGETS, VERBS, Cell, cells
from virtflow.access.role import allows
from virtflow.kube import Informer, KubeClient
from virtflow.kube.resources import (
    NAMESPACES,
    RESOURCE_QUOTAS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SUBJECT_ACCESS_REVIEWS,
)
from workflows.access_models import (
    AccessOrder,
    Door,
    DoorRequest,
    Outcome,
    SecretOrder,
    Withdrawal,
    WithdrawnTokenOrder,
)
from workflows.models import Bearer, GatewayRequest, Verb
from workflows.tenant_models import PolicyRule, Tenant, TenantOrder, TenantSpec

pytestmark = pytest.mark.anyio

ROUNDS = 8
PATIENCE = timedelta(seconds=20)
LABELS = {"virtflow.io/run": "test"}


@dataclass
class Activities:
    kube: KubeClient
    access: Access
    gateway: Gateway
    tenants: Tenants
    environment: ActivityEnvironment
    orders: list[TenantOrder]

    async def tenant(self, name: str, role: list[PolicyRule], *users: str) -> Tenant:
        spec = TenantSpec(list(users) or ["user"], role)
        order = TenantOrder(name, f"{name}-{uuid.uuid4().hex[:8]}", LABELS, spec)
        self.orders.append(order)
        return await self.environment.run(self.tenants.create_tenant, order)

    async def until(self, cell: Cell, allowed: bool) -> None:
        """Until the kube-apiserver's authorizer has heard of a binding."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while await self.reviewed(cell) is not allowed:  # noqa: ASYNC110 - it is another process that has to hear
                await asyncio.sleep(0.05)

    async def reviewed(self, cell: Cell) -> bool:
        """Whether the cluster's own authorizer would allow it."""
        resource = cell.target.resource
        attributes = {
            "namespace": cell.place,
            "verb": cell.verb,
            "group": resource.group,
            "resource": resource.plural,
            "subresource": cell.target.subresource,
        }
        spec = {"user": cell.user, "resourceAttributes": attributes}
        review = await self.kube.create(SUBJECT_ACCESS_REVIEWS, {"spec": spec})
        return bool(review["status"]["allowed"])


@pytest.fixture
async def activities(endpoints: Endpoints) -> AsyncIterator[Activities]:
    environment = ActivityEnvironment()
    # A workflow of its own for each test: request ids are derived from it.
    environment.info = dataclasses.replace(environment.info, workflow_run_id=uuid.uuid4().hex)
    async with contextlib.AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await KubeClient.connect(endpoints.kubeconfig))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        informers = [Informer(kube, resource) for resource in (NAMESPACES, SERVICE_ACCOUNTS, RESOURCE_QUOTAS)]
        for informer in informers:
            await stack.enter_async_context(informer.running())
        tokens = Tokens(kube)
        made = Activities(
            kube,
            Access(kube, Doors(kube, http, endpoints), tokens, endpoints),
            Gateway(kube, http, endpoints, tokens),
            Tenants(kube, tokens, *informers),
            environment,
            [],
        )
        yield made
        # Kubernetes takes five seconds for each: nobody waits for it.
        await asyncio.gather(*(kube.delete(NAMESPACES, order.namespace) for order in made.orders))


def drawn_role(draw: random.Random) -> list[PolicyRule]:
    """Some rules, as people write them, and as they should not."""
    groups = ["", "kubevirt.io", "subresources.kubevirt.io", "autoscaling", "apps", "*"]
    resources = [*(str(target) for target in TARGETS), "virtualmachines/status", "*/start", "*/*", "pods/*", "*"]
    return [
        PolicyRule(
            draw.sample(groups, draw.randint(1, 3)),
            draw.sample(resources, draw.randint(1, 4)),
            draw.choices([*VERBS, "*"], k=draw.randint(1, 4)),
        )
        for _ in range(draw.randint(0, 3))
    ]


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_whatever_the_roles_are_both_doors_do_what_they_say(activities: Activities, seed: int) -> None:
    draw = random.Random(seed)
    tenants = [await activities.tenant(f"tenant-{letter}", drawn_role(draw)) for letter in "ab"]
    order = AccessOrder(tenants, tenants)
    matrix = await activities.environment.run(activities.access.try_everything, order)
    roles = [tenant.role for tenant in tenants]
    assert matrix.holes == [], roles
    assert (matrix.totals.cells, matrix.totals.requests) == (660, 1320)
    assert matrix.evidence.contradictions == []
    assert matrix.evidence.strays == []
    assert matrix.evidence.decisions + matrix.evidence.never_arrived == matrix.totals.requests
    # Each is tried at both doors, and what is tried at the kube-apiserver is decided there.
    assert matrix.evidence.decisions >= matrix.totals.cells


async def test_a_role_allows_what_the_clusters_own_authorizer_does(activities: Activities) -> None:
    draw = random.Random("roles")
    tenants = [await activities.tenant(f"tenant-{number}", drawn_role(draw)) for number in range(6)]
    for tenant in tenants:
        own = [cell for cell in cells(tenant, tenants) if cell.place == tenant.namespace]
        may = [allows(tenant.role, cell.target.resource.group, str(cell.target), cell.verb) for cell in own]
        if True in may:
            await activities.until(own[may.index(True)], allowed=True)
        assert await asyncio.gather(*map(activities.reviewed, own)) == may, tenant.role


async def test_a_binding_that_nobody_should_have_made_is_a_hole_at_both_doors(activities: Activities) -> None:
    tenant = await activities.tenant("tenant-a", [], "user", "other")
    victim = await activities.tenant("tenant-b", [])
    role_ref = {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": "leak"}
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "update"]}]
    subject = {"kind": SERVICE_ACCOUNTS.kind, "namespace": tenant.namespace, "name": tenant.users[1]}
    await activities.kube.create(ROLES, {"metadata": {"name": "leak"}, "rules": rules}, victim.namespace)
    binding = {"metadata": {"name": "leak"}, "roleRef": role_ref, "subjects": [subject]}
    await activities.kube.create(ROLE_BINDINGS, binding, victim.namespace)
    others = (cell for cell in cells(tenant, [tenant, victim]) if cell.account == tenant.users[1])
    everything = {(str(cell.target), cell.verb, cell.place): cell for cell in others}
    await activities.until(everything["secrets", "get", victim.namespace], allowed=True)

    matrix = await activities.environment.run(
        activities.access.try_everything, AccessOrder([tenant], [tenant, victim])
    )
    found = {(hole.user, hole.verb, hole.resource, hole.place, hole.door, hole.observed) for hole in matrix.holes}
    leaks = itertools.product(("get", "update"), Door)
    assert found == {("tenant-a-other", verb, "secrets", "tenant-b", door, Outcome.ALLOWED) for verb, door in leaks}
    assert matrix.evidence.contradictions == [], "the audit log tells of the hole as well"


async def test_a_repeated_try_makes_the_same_of_it_and_leaves_nothing(activities: Activities) -> None:
    tenant = await activities.tenant("tenant-a", [PolicyRule(["*"], ["*"], ["*"])])
    order = AccessOrder([tenant], [tenant])
    first = await activities.environment.run(activities.access.try_everything, order)
    again = await activities.environment.run(activities.access.try_everything, order)
    assert first == again
    assert first.totals.allowed
    for target in TARGETS:
        if not target.subresource:
            there = await activities.kube.list(target.resource, tenant.namespace)
            assert [each for each in there if each["metadata"]["name"] == "access-probe"] == []


async def test_a_secret_is_read_by_whom_it_belongs_to_alone_and_is_in_no_answer(activities: Activities) -> None:
    reader = [PolicyRule([""], ["secrets"], ["get"])]
    owner, other = await activities.tenant("tenant-a", reader), await activities.tenant("tenant-b", reader)
    await activities.environment.run(
        activities.access.create_secret, SecretOrder(owner.namespace, "password", LABELS)
    )
    by_name = {(str(cell.target), cell.verb, cell.place): cell for cell in cells(owner, [owner])}
    await activities.until(by_name["secrets", "get", owner.namespace], allowed=True)
    for door in Door:
        own = DoorRequest(owner, door, "get", "secrets", owner.namespace, "password")
        answer = await activities.environment.run(activities.access.request_at_door, own)
        assert (answer.code, answer.reason, answer.message) == (200, "", "")
        refused = await activities.environment.run(
            activities.access.request_at_door, dataclasses.replace(own, tenant=other)
        )
        assert (refused.code, refused.reason) == (403, "Forbidden")


@pytest.mark.parametrize("door", Door)
async def test_a_token_is_for_one_door(activities: Activities, door: Door) -> None:
    tenant = await activities.tenant("tenant-a", [])
    (other,) = set(Door) - {door}
    request = DoorRequest(tenant, door, "list", "secrets", tenant.namespace, token_for=other)
    answer = await activities.environment.run(activities.access.request_at_door, request)
    assert (answer.code, answer.reason, answer.message) == (401, "Unauthorized", "Unauthorized")


@pytest.mark.parametrize("bearer", [each for each in Bearer if each is not Bearer.TENANT])
async def test_what_opens_nothing_is_refused_without_a_word_and_logged_with_one(
    activities: Activities, bearer: Bearer
) -> None:
    tenant = await activities.tenant("tenant-a", [])
    request = GatewayRequest(tenant, Verb.LIST, bearer=bearer)
    answer = await activities.environment.run(activities.gateway.send, request)
    assert (answer.code, answer.reason, answer.message) == (401, "Unauthorized", "Unauthorized")
    logged = await activities.environment.run(activities.access.read_logs, answer.request_id)
    assert (logged.verdict, logged.forwarded) == ("unauthenticated", 0)
    assert "bearer token" in logged.reason
    assert [heard.split()[-1] for heard in logged.heard] in ([], ["tokenreviews"])


async def test_a_withdrawn_token_is_refused_in_time(activities: Activities) -> None:
    async def withdraw(withdrawal: Withdrawal) -> None:
        tenant = await activities.tenant(
            f"tenant-{withdrawal.name.lower()}", [PolicyRule(["kubevirt.io"], ["virtualmachines"], ["list"])]
        )
        by_name = {(str(cell.target), cell.verb, cell.place): cell for cell in cells(tenant, [tenant])}
        await activities.until(by_name["virtualmachines", "list", tenant.namespace], allowed=True)
        order = WithdrawnTokenOrder(tenant, withdrawal, timedelta(seconds=60), LABELS)
        token = await activities.environment.run(activities.gateway.withdraw_token, order)
        assert (token.worked, token.last.code, token.last.message) == (200, 401, "Unauthorized")
        assert token.let_in_for <= timedelta(seconds=20)
        accounts = await activities.kube.list(SERVICE_ACCOUNTS, tenant.namespace)
        labels = {each["metadata"]["name"]: each["metadata"].get("labels") for each in accounts}
        assert labels.get(tenant.user) == (LABELS if withdrawal is Withdrawal.SECRET else None)

    await asyncio.gather(*map(withdraw, Withdrawal))


async def test_what_one_claims_to_be_reaches_nobody(activities: Activities) -> None:
    tenant, victim = await activities.tenant("tenant-a", []), await activities.tenant("tenant-b", [])
    value = f"system:serviceaccount:{victim.namespace}:{victim.user}"
    for header in ("Impersonate-User", "X-Remote-User", "Authorization"):
        request = GatewayRequest(tenant, Verb.LIST, namespace=victim.namespace, headers={header: value})
        # Another id for each: the environment's is one activity's.
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, workflow_run_id=uuid.uuid4().hex)
        answer = await environment.run(activities.gateway.send, request)
        assert (answer.code, answer.reason) == (400, "BadRequest")
        logged = await environment.run(activities.access.read_logs, answer.request_id)
        assert logged.heard == []
