"""Steps about tenants: what a platform grants them, and many of them at once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_bdd import given, then, when

from tests.e2e.phrases import Manifest, TenantFile, TenantName, phrase
from tests.e2e.steps.world import MANIFESTS, TENANTS, World
from virtflow.tenant_files import load_tenant
from workflows.models import GatewayRequest, Verb
from workflows.scenario import Scenario
from workflows.tenant_models import TenantOrder, TenantSpec

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report


@given(phrase('the tenant "{name:TenantName}"'))
def a_tenant(session: "Session", world: World, name: TenantName) -> None:
    order = TenantOrder(name, session.namespace_of(name), session.labels)
    world.tenants[name] = session.ask(Scenario.create_tenant, order)


@given(phrase('the tenant "{name:TenantName}" of "{file:TenantFile}"'))
def a_tenant_of_a_file(
    session: "Session", report: "Report", world: World, name: TenantName, file: TenantFile
) -> None:
    order = order_of(session, name, file)
    tell(report, order.spec)
    world.tenants[name] = session.ask(Scenario.create_tenant, order)


@when(phrase('the platform changes "{name:Name}" to "{file:TenantFile}"'))
def change_tenant(session: "Session", report: "Report", world: World, name: str, file: TenantFile) -> None:
    tenant, said = world.tenant(name), load_tenant(TENANTS / file)
    tell(report, said.spec)
    # Its namespace stays: what it made is there.
    order = TenantOrder(name, tenant.namespace, session.labels, said.spec)
    world.tenants[name] = session.ask(Scenario.change_tenant, order)


@given(phrase("{number:d} tenants"))
def many_tenants(session: "Session", world: World, number: int) -> None:
    names = [f"tenant-{each:03}" for each in range(1, number + 1)]
    orders = [TenantOrder(name, session.namespace_of(name), session.labels) for name in names]
    world.crowd.tenants = session.ask(Scenario.create_tenants, orders)


@given(phrase('{number:d} tenants of "{file:TenantFile}"'))
def many_tenants_of_a_file(session: "Session", report: "Report", world: World, number: int, file: TenantFile) -> None:
    orders = [order_of(session, f"tenant-{each:03}", file) for each in range(1, number + 1)]
    tell(report, orders[0].spec)
    world.crowd.tenants = session.ask(Scenario.create_tenants, orders)


@when(phrase('each of them creates the virtual machine of "{manifest:Manifest}"'))
def each_creates(session: "Session", world: World, manifest: Manifest) -> None:
    text = (MANIFESTS / manifest).read_text()
    requests = [
        GatewayRequest(tenant, Verb.CREATE, manifest=text, labels=session.labels) for tenant in world.crowd.tenants
    ]
    world.crowd.created = session.ask(Scenario.request_gateway_at_once, requests)


@then("each of them sees its own virtual machine, and no other")
def each_sees_its_own(session: "Session", report: "Report", world: World) -> None:
    crowd = world.crowd
    lists = [GatewayRequest(tenant, Verb.LIST) for tenant in crowd.tenants]
    seen = session.ask(Scenario.request_gateway_at_once, lists)
    refused = [f"{made.code} {made.reason}" for made in crowd.created if made.code != 201]
    assert not refused, f"{len(refused)} of {len(crowd.created)} were refused: {refused[0]}."
    for tenant, made, saw in zip(crowd.tenants, crowd.created, seen, strict=True):
        assert saw.machines == made.machines, f"{tenant.name} created {made.machines} and sees {saw.machines}."
        assert [machine.namespace for machine in saw.machines] == [tenant.namespace]
    uids = {machine.uid for saw in seen for machine in saw.machines}
    assert len(uids) == len(crowd.tenants) > 0, f"{len(uids)} machines of {len(crowd.tenants)} tenants."
    report.note(f"{len(crowd.tenants)} tenants, {len(uids)} virtual machines")


@then("each of them is refused the list of the next one's")
def each_is_refused(session: "Session", world: World) -> None:
    tenants = world.crowd.tenants
    requests = [
        GatewayRequest(one, Verb.LIST, namespace=other.namespace) for one, other in pairwise([*tenants, *tenants[:1]])
    ]
    answers = session.ask(Scenario.request_gateway_at_once, requests)
    let_in = [
        f"{one.tenant.name} was answered {answer.code}"
        for one, answer in zip(requests, answers, strict=True)
        if answer.code != 403
    ]
    assert len(tenants) > 1, "There is no next: write Given 2 tenants, or more."
    assert not let_in, f"{len(let_in)} of {len(answers)}: {', '.join(let_in)}"


def order_of(session: "Session", name: str, file: TenantFile) -> TenantOrder:
    said = load_tenant(TENANTS / file)
    # With the tenant's name also after the file's word: a file may describe many.
    begin = f"{said.namespace}-{name}" if said.namespace else name
    return TenantOrder(name, session.namespace_of(begin), session.labels, said.spec)


def tell(report: "Report", spec: TenantSpec) -> None:
    """What the file grants: whoever reads the report need not look it up."""
    grants: Sequence[tuple[str, str]] = [
        ("quota", ", ".join(f"{resource} {bound}" for resource, bound in spec.quota.items())),
        ("limits", "; ".join(_words(limit) for limit in spec.limits)),
    ]
    for what, words in grants:
        if words:
            report.note(f"{what}: {words}")


def _words(limit: dict[str, object]) -> str:
    kind = str(limit["type"]).lower()
    bounds = [
        f"{bound} {resource} {amount}"
        for bound, amounts in limit.items()
        if isinstance(amounts, dict)
        for resource, amount in amounts.items()
    ]
    return f"a {kind}'s {', '.join(bounds)}"
