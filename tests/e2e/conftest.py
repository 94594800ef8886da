"""Glue between pytest-bdd and Temporal: one durable session for each scenario, one line for each step.

Of a run that was killed, the scenarios that had ended are told again, and the one that had begun is gone through from
its first step: the session returns the results it has, so that all that follows finds what it found before.
"""

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio import fail_after
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pytest_bdd.parser import Feature, ScenarioTemplate, Step
from pytest_bdd.parser import Scenario as GherkinScenario
from pytest_bdd.scenario import scenario_wrapper_template_registry
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import UpdateMethodMultiParam

from clusters.endpoints import Endpoints
from tests.e2e import steps
from tests.e2e.check import check_features
from tests.e2e.failures import keep_bundle
from tests.e2e.report import Report
from tests.e2e.resume import ended_session, retold, steps_taken, undone_meanwhile
from tests.e2e.steps import *  # noqa: F403  pytest-bdd finds steps by their names in the conftest
from tests.e2e.steps.world import FEATURES
from virtflow.errors import InfrastructureError, InputError, explain
from virtflow.leftovers import left_by, sweep
from virtflow.run import code_of
from virtflow.temporal import TASK_QUEUE, answering, connect, patiently
from virtflow.terminal import console, phase
from virtflow.verdicts import VERDICTS, verdict_on
from workflows.failures import FailureType
from workflows.labels import SCENARIO, labels_of
from workflows.models import ScenarioOrder
from workflows.options import ANSWER_LIMIT, IDLE_TIMEOUT, STEP_LIMIT, UNDONE_LIMIT
from workflows.scenario import ENDINGS, Scenario

scenario_key = pytest.StashKey[GherkinScenario]()
Order = TypeVar("Order")
Result = TypeVar("Result")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("virtflow")
    group.addoption("--virtflow-endpoints", type=Path, help="endpoints.json of the cluster to test")
    group.addoption("--virtflow-run", default="run", help="id of this run")
    group.addoption("--virtflow-only", default="", help="words of a feature's or a scenario's name")
    group.addoption("--virtflow-report", type=Path, help="folder of this run's report")
    group.addoption("--virtflow-await-undone", action="store_true", help="interrupted, wait until all is undone")


class Session:
    """The scenario's workflow, spoken to from synchronous steps."""

    def __init__(self, portal: BlockingPortal, handle: WorkflowHandle[Any, list[str]], order: ScenarioOrder) -> None:
        self._portal = portal
        self._handle = handle
        self._order = order
        self._finished: set[str] = set()
        self._reached = 0
        """The last position that an earlier runner came to."""
        self._position = 0
        self._asked: list[str] = []
        self._text = ""
        self.step_began = datetime.now(UTC)

    @property
    def workflow_id(self) -> str:
        return self._handle.id

    def take_up(self) -> None:
        """Learn how far a runner came with it that was killed. Raises InfrastructureError if it is over."""
        taken = talk(self._portal, ANSWER_LIMIT, lambda: steps_taken(self._handle))
        if taken.is_over:
            raise undone_meanwhile(self._order)
        self._finished = set(taken.finished)
        self._reached = max((int(update[:3]) for update in taken.finished + taken.under_way), default=0)

    @property
    def labels(self) -> dict[str, str]:
        """For everything this scenario makes."""
        return self._order.labels

    def namespace_of(self, begin: str) -> str:
        """A tenant's own namespace in this scenario: derived, so that a repeated step finds it."""
        return f"{begin}-{self._order.labels[SCENARIO]}"

    def entered(self, step: Step) -> None:
        """Which step speaks next: part of its update's id."""
        self._position += 1
        self._asked = []
        self.step_began = datetime.now(UTC)
        self._text = f"{step.keyword} {step.name} {step.docstring or ''} {step.datatable or ''}"

    def ask(self, update: UpdateMethodMultiParam[[Any, Order], Result], order: Order) -> Result:
        """Have the workflow do a step, and return its result; a repeated one returns what the first did."""
        digest = hashlib.sha256(self._text.encode()).hexdigest()[:8]
        update_id = f"{self._position:03}-{len(self._asked) + 1}-{digest}"
        self._asked.append(update_id)
        try:
            return talk(self._portal, STEP_LIMIT, lambda: self._update(update, order, update_id))
        except WorkflowUpdateFailedError as error:
            raise verdict_on(error) from None

    async def _update(
        self, update: UpdateMethodMultiParam[[Any, Order], Result], order: Order, update_id: str
    ) -> Result:
        try:
            return await self._handle.execute_update(update, order, id=update_id)
        except (RPCError, WorkflowUpdateFailedError) as error:
            if not _is_over(error):
                raise
            # Which Temporal says no more of than that.
            status = (await self._handle.describe()).status
            # Whoever terminates it leaves it no moment to know of it.
            was_killed = status is WorkflowExecutionStatus.TERMINATED
            ended_by = FailureType.CANCELLED if was_killed else await self._handle.query(Scenario.ended_by)
            raise VERDICTS[ended_by](ENDINGS[ended_by]) from None

    @property
    def resumed(self) -> str:
        """What a runner that was killed had of the step that was entered last: its end, its begin, or nothing."""
        if self._position > self._reached:
            return ""
        had_ended = self._position < self._reached or self._finished.issuperset(self._asked)
        return "resumed" if had_ended else "taken up"

    def end(self) -> None:
        """End the scenario: everything it made is undone, while the next one is on its way."""

        async def end() -> None:
            try:
                await self._handle.signal(Scenario.end)
            except RPCError as error:
                # Somebody has cancelled or terminated it.
                if not _is_over(error):
                    raise

        talk(self._portal, STEP_LIMIT, end)

    def left(self, kubeconfig: Path) -> list[str]:
        """Wait until the scenario is undone, and say what could not be."""
        try:
            return talk(self._portal, UNDONE_LIMIT, self._handle.result)
        except WorkflowFailureError:
            # Terminated from outside, say, it has undone nothing.
            return self._portal.call(sweep, kubeconfig, f"{SCENARIO}={self._order.labels[SCENARIO]}")


def _is_over(error: RPCError | WorkflowUpdateFailedError) -> bool:
    """Whether the workflow had ended when it was asked, or did so before it had answered."""
    if isinstance(error, RPCError):
        return error.status is RPCStatusCode.NOT_FOUND
    return isinstance(error.cause, ApplicationError) and error.cause.type == "AcceptedUpdateCompletedWorkflow"


def talk(portal: BlockingPortal, limit: timedelta, call: Callable[[], Awaitable[Result]]) -> Result:
    """Ask Temporal from a synchronous step, again if it was away meanwhile: all that is asked may be asked twice.

    Raises InfrastructureError if there is no answer within the limit.
    """

    async def within_limit() -> Result:
        with fail_after(limit.total_seconds()):
            return await patiently(call)

    try:
        with answering():
            return portal.call(within_limit)
    except TimeoutError:
        raise _silent(limit) from None


def _silent(limit: timedelta) -> InfrastructureError:
    minutes = limit / timedelta(minutes=1)
    return InfrastructureError(
        f"The worker gave no answer for {minutes:.0f} minutes. `virtflow status` shows whether it and Temporal run, "
        f"`virtflow logs worker` what it says."
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Ahead of test_features.py, whose import would stop at the first fault."""
    markers = {line.partition(":")[0].partition("(")[0].strip() for line in session.config.getini("markers")}
    check_features(FEATURES, steps.MODULES, markers)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the scenarios that were asked for, and the last word of the run. Nothing to run is an error."""
    only: str = config.getoption("--virtflow-only").lower()

    def names(item: pytest.Item) -> str:
        template = _template_of(item)
        return f"{template.feature.name}\n{template.name}".lower() if template else ""

    scenarios = [item for item in items if only in names(item) and names(item)]
    if not scenarios:
        raise InputError(f"No scenario has {only!r} in its name or its feature's: there is nothing to run.")
    items[:] = scenarios + [item for item in items if not names(item)]


def _template_of(item: pytest.Item) -> ScenarioTemplate | None:
    """The scenario that a test is made of; None for a test that is none."""
    return scenario_wrapper_template_registry.get(item.obj) if isinstance(item, pytest.Function) else None


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal
        # A step that was interrupted may still be waiting for its answer.
        portal.call(portal.stop, True)


@pytest.fixture(scope="session")
def endpoints(pytestconfig: pytest.Config) -> Endpoints:
    file: Path = pytestconfig.getoption("--virtflow-endpoints")
    endpoints = Endpoints.load(file)
    pytestconfig.stash[report_key].kubevirt = endpoints.kubevirt
    return endpoints


@pytest.fixture(scope="session")
def temporal(portal: BlockingPortal, endpoints: Endpoints) -> Client:
    return portal.call(connect, endpoints)


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    return pytestconfig.stash[report_key]


@pytest.fixture(scope="session")
def sessions(
    request: pytest.FixtureRequest, portal: BlockingPortal, temporal: Client, endpoints: Endpoints
) -> Iterator[list[Session]]:
    """Every session of this run, for the last test to see them undone. An interrupted run has no last test."""
    run_id: str = request.config.getoption("--virtflow-run")
    sessions: list[Session] = []
    for earlier in request.config.stash[report_key].earlier:
        order = _order_of(run_id, earlier.id, earlier.feature, earlier.name)
        if handle := talk(portal, STEP_LIMIT, partial(ended_session, temporal, earlier.id)):
            sessions.append(Session(portal, handle, order))
    yield sessions
    interrupted = request.session.exitstatus == pytest.ExitCode.INTERRUPTED
    if interrupted and request.config.getoption("--virtflow-await-undone"):
        with phase("Interrupted: undoing what the scenarios made"):
            left = what_is_left(portal, sessions, endpoints.kubeconfig, run_id)
        if left:
            console.print("Cleanup left something behind: " + "; ".join(left), style="red", markup=False)


def what_is_left(portal: BlockingPortal, sessions: list[Session], kubeconfig: Path, run: str) -> list[str]:
    """Wait until the scenarios are undone, and say what could not be."""
    left = [line for session in sessions for line in session.left(kubeconfig)]
    # What no session knew of is there all the same, and has the label.
    return left or portal.call(left_by, kubeconfig, run)


@pytest.fixture
def session(
    request: pytest.FixtureRequest,
    portal: BlockingPortal,
    temporal: Client,
    sessions: list[Session],
    report: Report,
    pytestconfig: pytest.Config,
) -> Iterator[Session]:
    scenario = request.node.stash[scenario_key]
    run_id: str = pytestconfig.getoption("--virtflow-run")
    workflow_id = session_id_of(request.node)
    order = _order_of(run_id, workflow_id, scenario.feature.name or "", scenario.name)

    async def start() -> WorkflowHandle[Any, list[str]]:
        try:
            return await temporal.start_workflow(
                Scenario.run,
                order,
                id=workflow_id,
                task_queue=TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )
        except WorkflowAlreadyStartedError:
            raise undone_meanwhile(order) from None

    session = Session(portal, talk(portal, STEP_LIMIT, start), order)
    sessions.append(session)
    try:
        if report.was_begun(workflow_id):
            session.take_up()
        yield session
    finally:
        session.end()


def session_id_of(item: pytest.Item) -> str:
    """The id of a scenario's workflow, derived, so that whoever takes the run up finds it."""
    template = _template_of(item)
    assert template is not None
    return f"{item.config.getoption('--virtflow-run')}/{slug(template.feature.name or '')}/{item.name}"


def _order_of(run_id: str, workflow_id: str, feature: str, scenario: str) -> ScenarioOrder:
    return ScenarioOrder(run_id, feature, scenario, labels_of(workflow_id), IDLE_TIMEOUT)


def slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")


# What happens, as it happens

report_key = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--virtflow-report")
    config.stash[report_key] = Report(config.getoption("--virtflow-run"), folder)


def pytest_bdd_before_scenario(request: pytest.FixtureRequest, feature: Feature, scenario: GherkinScenario) -> None:
    request.node.stash[scenario_key] = scenario
    request.config.stash[report_key].scenario_starts(session_id_of(request.node), feature.name or "", scenario.name)


def pytest_bdd_before_step(request: pytest.FixtureRequest, step: Step) -> None:
    session: Session = request.getfixturevalue("session")
    session.entered(step)
    request.config.stash[report_key].step_starts(f"{step.keyword} {step.name}", time.monotonic())


def pytest_bdd_after_step(request: pytest.FixtureRequest) -> None:
    session: Session = request.getfixturevalue("session")
    request.config.stash[report_key].step_ends(time.monotonic(), None, session.resumed)


def pytest_bdd_step_error(
    request: pytest.FixtureRequest, feature: Feature, scenario: GherkinScenario, step: Step, exception: Exception
) -> None:
    problem = explain(exception)
    session: Session = request.getfixturevalue("session")
    request.config.stash[report_key].step_ends(time.monotonic(), problem, session.resumed)
    keep_bundle(request, feature.name or "", scenario.name, f"{step.keyword} {step.name}", problem)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """What an earlier runner of this run has finished is told again, to whoever reads reports, and not done again."""
    report = item.config.stash[report_key]
    earlier = {scenario.id: scenario for scenario in report.earlier}
    if not earlier or _template_of(item) is None or session_id_of(item) not in earlier:
        return None
    scenario = earlier[session_id_of(item)]
    report.retell(scenario)
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for told in retold(item, scenario):
        hook.pytest_runtest_logreport(report=told)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    outcome = yield
    report = item.config.stash[report_key]
    problem = explain(call.excinfo.value) if outcome.failed and call.excinfo else None
    if scenario_key in item.stash:
        report.scenario_reports(outcome, problem, code_of(call.excinfo.value) if problem and call.excinfo else None)
    else:
        report.cleanup_reports(outcome, problem)
    return outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[report_key].write()
