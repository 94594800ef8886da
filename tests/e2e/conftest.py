"""Glue between pytest-bdd and Temporal: one durable session for each scenario, one line for each step."""

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from anyio import fail_after
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pytest_bdd.parser import Feature, Step
from pytest_bdd.parser import Scenario as GherkinScenario
from pytest_bdd.scenario import scenario_wrapper_template_registry
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import UpdateMethodMultiParam

from clusters.endpoints import Endpoints
from tests.e2e import steps
from tests.e2e.check import check_features
from tests.e2e.failures import keep_bundle
from tests.e2e.report import Report
from tests.e2e.steps import *  # noqa: F403  pytest-bdd finds steps by their names in the conftest
from tests.e2e.steps.world import FEATURES
from virtflow.errors import InfrastructureError, InputError, explain
from virtflow.leftovers import sweep
from virtflow.temporal import TASK_QUEUE, answering, connect
from virtflow.terminal import console, phase
from virtflow.verdicts import VERDICTS, verdict_on
from workflows.labels import SCENARIO, labels_of
from workflows.models import ScenarioOrder
from workflows.options import IDLE_TIMEOUT, STEP_LIMIT, UNDONE_LIMIT
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
        self._position = 0
        self._asked = 0
        self._text = ""
        self.step_began = datetime.now(UTC)

    @property
    def workflow_id(self) -> str:
        return self._handle.id

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
        self._asked = 0
        self.step_began = datetime.now(UTC)
        self._text = f"{step.keyword} {step.name} {step.docstring or ''} {step.datatable or ''}"

    def ask(self, update: UpdateMethodMultiParam[[Any, Order], Result], order: Order) -> Result:
        """Have the workflow do a step, and return its result; a repeated one returns what the first did."""
        digest = hashlib.sha256(self._text.encode()).hexdigest()[:8]

        self._asked += 1
        update_id = f"{self._position:03}-{self._asked}-{digest}"

        try:
            return talk(self._portal, STEP_LIMIT, lambda: self._update(update, order, update_id))
        except WorkflowUpdateFailedError as error:
            raise verdict_on(error) from None

    async def _update(
        self, update: UpdateMethodMultiParam[[Any, Order], Result], order: Order, update_id: str
    ) -> Result:
        try:
            return await self._handle.execute_update(update, order, id=update_id)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            # It is over and undone, which Temporal says no more of than that.
            ended_by = await self._handle.query(Scenario.ended_by)
            raise VERDICTS[ended_by](ENDINGS[ended_by]) from None

    def end(self) -> None:
        """End the scenario: everything it made is undone, while the next one is on its way."""

        async def end() -> None:
            try:
                await self._handle.signal(Scenario.end)
            except RPCError as error:
                # It has ended: somebody has cancelled or terminated it.
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise

        talk(self._portal, STEP_LIMIT, end)

    def left(self, kubeconfig: Path) -> list[str]:
        """Wait until the scenario is undone, and say what could not be."""
        try:
            return talk(self._portal, UNDONE_LIMIT, self._handle.result)
        except WorkflowFailureError:
            # Terminated from outside, say, it has undone nothing.
            return self._portal.call(sweep, kubeconfig, f"{SCENARIO}={self._order.labels[SCENARIO]}")


def talk(portal: BlockingPortal, limit: timedelta, call: Callable[[], Awaitable[Result]]) -> Result:
    """Ask Temporal from a synchronous step. Raises InfrastructureError if there is no answer within the limit."""

    async def within_limit() -> Result:
        with fail_after(limit.total_seconds()):
            return await call()

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
        template = scenario_wrapper_template_registry.get(item.obj) if isinstance(item, pytest.Function) else None
        return f"{template.feature.name}\n{template.name}".lower() if template else ""

    scenarios = [item for item in items if only in names(item) and names(item)]
    if not scenarios:
        raise InputError(f"No scenario has {only!r} in its name or its feature's: there is nothing to run.")
    items[:] = scenarios + [item for item in items if not names(item)]


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
def sessions(request: pytest.FixtureRequest, temporal: Client, endpoints: Endpoints) -> Iterator[list[Session]]:
    """Every session of this run, for the last test to see them undone. An interrupted run has no last test."""
    sessions: list[Session] = []
    yield sessions
    interrupted = request.session.exitstatus == pytest.ExitCode.INTERRUPTED
    if interrupted and request.config.getoption("--virtflow-await-undone"):
        with phase("Interrupted: undoing what the scenarios made"):
            left = [line for session in sessions for line in session.left(endpoints.kubeconfig)]
        if left:
            console.print("Cleanup left something behind: " + "; ".join(left), style="red", markup=False)


@pytest.fixture
def session(
    request: pytest.FixtureRequest,
    portal: BlockingPortal,
    temporal: Client,
    sessions: list[Session],
    pytestconfig: pytest.Config,
) -> Iterator[Session]:
    scenario = request.node.stash[scenario_key]
    run_id: str = pytestconfig.getoption("--virtflow-run")
    workflow_id = f"{run_id}/{slug(scenario.feature.name or '')}/{request.node.name}"
    order = ScenarioOrder(
        run_id=run_id,
        feature=scenario.feature.name or "",
        scenario=scenario.name,
        labels=labels_of(workflow_id),
        idle_timeout=IDLE_TIMEOUT,
    )

    async def start() -> WorkflowHandle[Any, list[str]]:
        return await temporal.start_workflow(Scenario.run, order, id=workflow_id, task_queue=TASK_QUEUE)

    session = Session(portal, talk(portal, STEP_LIMIT, start), order)
    sessions.append(session)
    yield session
    session.end()


def slug(text: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")


# What happens, as it happens

report_key = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    folder: Path | None = config.getoption("--virtflow-report")
    config.stash[report_key] = Report(config.getoption("--virtflow-run"), folder)


def pytest_bdd_before_scenario(request: pytest.FixtureRequest, feature: Feature, scenario: GherkinScenario) -> None:
    request.node.stash[scenario_key] = scenario
    request.config.stash[report_key].scenario_starts(feature.name or "", scenario.name)


def pytest_bdd_before_step(request: pytest.FixtureRequest, step: Step) -> None:
    session: Session = request.getfixturevalue("session")
    session.entered(step)
    request.config.stash[report_key].step_starts(f"{step.keyword} {step.name}", time.monotonic())


def pytest_bdd_after_step(request: pytest.FixtureRequest) -> None:
    request.config.stash[report_key].step_ends(time.monotonic(), None)


def pytest_bdd_step_error(
    request: pytest.FixtureRequest, feature: Feature, scenario: GherkinScenario, step: Step, exception: Exception
) -> None:
    problem = explain(exception)
    request.config.stash[report_key].step_ends(time.monotonic(), problem)
    keep_bundle(request, feature.name or "", scenario.name, f"{step.keyword} {step.name}", problem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    outcome = yield
    report = item.config.stash[report_key]
    problem = explain(call.excinfo.value) if outcome.failed and call.excinfo else None
    if scenario_key in item.stash:
        report.scenario_reports(outcome, problem)
    else:
        report.cleanup_reports(outcome, problem)
    return outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[report_key].write()
