"""Steps about load, and a replica set that follows it."""

from datetime import timedelta
from typing import TYPE_CHECKING

from pytest_bdd import given, then, when

from tests.e2e.phrases import Manifest, phrase
from tests.e2e.steps.world import LOAD_RAMP, MANIFESTS, MILLISECOND, RUNNING_WITHIN, World
from virtflow.sequence.scale import TOLERANCE
from workflows.models import AutoscaleOrder, LoadOrder, LoadOutcome, ReplicaSetOrder
from workflows.scenario import Scenario

if TYPE_CHECKING:
    from tests.e2e.conftest import Session
    from tests.e2e.report import Report

SETTLED_WITHIN = timedelta(minutes=5)
SCALED_IN_WITHIN = timedelta(minutes=5)


@given(phrase('"{tenant:Name}" has the replica set of "{vmirs:Manifest}" with the autoscaler of "{hpa:Manifest}"'))
def a_replica_set(session: "Session", world: World, tenant: str, vmirs: Manifest, hpa: Manifest) -> None:
    order = ReplicaSetOrder(
        world.tenant(tenant).namespace,
        (MANIFESTS / vmirs).read_text(),
        (MANIFESTS / hpa).read_text(),
        session.labels,
        RUNNING_WITHIN,
    )
    world.replica_set = session.ask(Scenario.create_replica_set, order)


@when(phrase("{users:d} users send {rate:g} request a second each until the replica set has settled"))
def load_until_settled(session: "Session", report: "Report", world: World, users: int, rate: float) -> None:
    target = world.replica_set
    assert target is not None, "No replica set was made before this step."
    load = LoadOrder(target, users, LOAD_RAMP, SETTLED_WITHIN, rate)
    order = AutoscaleOrder(target, load, SETTLED_WITHIN, SCALED_IN_WITHIN)
    world.autoscaled = session.ask(Scenario.autoscale_under_load, order)
    tell_interruption(report, world.autoscaled.load)


def tell_interruption(report: "Report", load: LoadOutcome) -> None:
    """Nothing of a load that went on undisturbed."""
    if load.restarted:
        report.note("Locust was killed under its load, and began it again")
    elif load.resumed:
        report.note("the worker ended under its load, and the next one took it up, as it was")


@then(phrase("it has scaled out from {before:d} replica, and never past {maximum:d}"))
def has_scaled_out(world: World, before: int, maximum: int) -> None:
    scaled = world.last_autoscaled()
    assert scaled.before.replicas == before, f"It had {scaled.before.replicas} replicas before the load."
    assert scaled.settled.replicas > before, f"It has {scaled.settled.replicas} replicas under load."
    assert scaled.highest <= maximum, f"It went to {scaled.highest} replicas."


@then("it has settled within the autoscaler's tolerance")
def has_settled(world: World) -> None:
    scaled = world.last_autoscaled()
    if scaled.settled.replicas < scaled.maximum:
        utilization, target = scaled.settled.utilization, scaled.target_utilization
        assert utilization is not None, "The autoscaler has no figures."
        assert abs(utilization / target - 1) <= TOLERANCE, f"It settled at {utilization} %, target {target} %."


@then(phrase("the latency has recovered to a P95 of at most {limit:d} ms"))
def latency_has_recovered(report: "Report", world: World, limit: int) -> None:
    load = world.last_autoscaled().load
    worst, last = load.worst.p95, load.last.p95
    for title, stretch in (("whole load", load.whole), ("worst 10 s", load.worst), ("last 10 s", load.last)):
        p95 = "among the failed" if stretch.p95 is None else f"{stretch.p95 / MILLISECOND:.0f} ms"
        report.note(f"{title}: P95 {p95}, {stretch.requests} requests, {stretch.failed} failed")
    assert load.never_started == 0, f"{load.never_started} users never started."
    assert last is not None, f"In the last seconds {load.last.failed} of {load.last.requests} requests failed."
    assert last <= timedelta(milliseconds=limit), f"The P95 at the end is {last / MILLISECOND:.0f} ms."
    assert worst is None or worst > timedelta(milliseconds=limit), "The latency never rose: this load was no load."


@then(phrase("it has scaled in to {minimum:d} replica after the load"))
def has_scaled_in(world: World, minimum: int) -> None:
    scaled = world.last_autoscaled()
    assert scaled.after.replicas == minimum, f"It has {scaled.after.replicas} replicas after the load."
    assert scaled.decisions, "The audit log holds no decision of the autoscaler."
    assert scaled.decisions[-1].after == minimum, f"The last decision in the audit log was {scaled.decisions[-1]}."


@then("each decision agrees with the autoscaler's metrics and policy, and virt-controller followed it")
def decisions_agree(report: "Report", world: World) -> None:
    decisions = world.last_autoscaled().decisions
    for d in decisions:
        after = (d.at - decisions[0].at).total_seconds()
        report.note(f"{after:>5.1f} s  {d.before} → {d.after} at {d.utilization} % of {d.target} %")
    wrong = [f"{d.before} → {d.after}: {d.disagreement}" for d in decisions if d.disagreement]
    not_followed = [f"{d.before} → {d.after}" for d in decisions if not d.followed]
    assert decisions, "The audit log holds no decision of the autoscaler."
    assert not wrong, f"Decisions that do not agree: {'; '.join(wrong)}"
    assert not not_followed, f"Decisions that virt-controller did not follow: {', '.join(not_followed)}"
