"""One run of the features: pytest on tests/e2e, the cluster it needs, and the report it leaves.

The cluster comes up after pytest has collected, so that nothing is started for a feature with a fault. A run whose
process was killed is carried out in the same way, but that its cluster must be there: what is finished is told by the
journal, what was begun by Temporal.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Generator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from clusters.endpoints import ClusterError, Endpoints
from clusters.local import LocalCluster
from virtflow.errors import InfrastructureError, InputError, VirtflowError
from virtflow.exit_codes import ExitCode, worst
from virtflow.interrupts import undo
from virtflow.runs import Run, RunRecord, checked_id, digests
from virtflow.settings import Settings
from virtflow.temporal import answering, connect
from virtflow.terminal import console
from workflows.scenario import Scenario

__all__ = ["code_of", "keep_logs", "resume_features", "run_features"]

ROOT = Path(__file__).parents[1]
LOG_LINES = 2000
TEMPORAL_LIMIT = timedelta(seconds=60)
POLL = timedelta(milliseconds=200)


def run_features(settings: Settings, *, keep: bool, only: str) -> ExitCode:
    """Run and report. What was started is taken down, also after an interrupt.

    Raises what kept pytest from running the scenarios: an InputError before anything has been started.
    """
    began = datetime.now(UTC)
    run_id = began.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    folder = Path.cwd() / "reports" / run_id
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"No report can be written to {folder}: {error.strerror}. Go to a folder that you may write to."
        ) from None
    cluster = LocalCluster(settings)
    record = RunRecord(run_id, cluster.name, began, only, stays=keep or cluster.is_up(), code=digests())
    return _carry_out(Run(folder, record), cluster)


def resume_features(settings: Settings, run_id: str, *, keep: bool) -> ExitCode:
    """Go on with a run whose process was killed, on its own cluster, and report all of it.

    Raises as above, and an InputError if it is not such a run, or was begun with other code or features, and a
    ClusterError if its cluster is gone: all before anything has been started.
    """
    # Whoever lets the shell complete the name gives a path.
    run = Run.load(Path.cwd() / "reports" / checked_id(Path(run_id).name))
    cluster = LocalCluster(settings.model_copy(update={"cluster": run.record.cluster}))
    try:
        run.take_up(digests())
        if not run.is_of(cluster.identity()):
            raise ClusterError(
                f"Cluster {cluster.name}, on which run {run.record.id} was, is gone, and what its scenarios had made "
                "with it: there is nothing to go on with. Start a new run: `virtflow e2e`."
            )
        if keep:
            run.note(stays=True)
        console.print(f"Run {run.record.id}: {run.finished} of {run.record.scenarios} scenarios were finished.")
        return _carry_out(run, cluster)
    finally:
        run.release()


def _carry_out(run: Run, cluster: LocalCluster) -> ExitCode:
    plugin = _Plugin(cluster, run)
    began = time.monotonic()
    code = ExitCode.BUG
    try:
        code = _run_pytest(plugin)
        return code
    except BaseException as error:
        code = code_of(error)
        raise
    finally:
        try:
            _wind_up(plugin, code)
        finally:
            run.release()
        if plugin.began:
            console.print(f"\nReport: {run.folder}  ({time.monotonic() - began:.0f} s)", markup=False)


def _wind_up(plugin: "_Plugin", code: ExitCode) -> None:
    """Keep what is worth reading, and take the cluster down."""
    run, cluster = plugin.run, plugin.cluster
    if not plugin.began:
        if not run.record.resumed:
            shutil.rmtree(run.folder, ignore_errors=True)
        return
    # First, because from here on there is nothing that could be resumed.
    run.note(exit_code=code)
    try:
        if code != ExitCode.PASSED:
            keep_logs(cluster, run.folder / "logs")
    finally:
        if not run.record.stays:
            interrupted = "Interrupted: taking" if isinstance(plugin.stopped_by, KeyboardInterrupt) else "Taking"
            try:
                undo(f"{interrupted} down cluster {cluster.name}", cluster.down)
            except BaseException as error:
                run.note(exit_code=code_of(error))
                raise


def _run_pytest(plugin: "_Plugin") -> ExitCode:
    run, record = plugin.run, plugin.run.record
    arguments = [
        str(ROOT / "tests" / "e2e"),
        f"--rootdir={ROOT}",
        f"--config-file={ROOT / 'pyproject.toml'}",
        # Only what a run needs: a plugin that happens to be installed must not change what is tested.
        "--disable-plugin-autoload",
        "-p",
        "pytest_bdd.plugin",
        # What a run says is the report's, line by line as it happens, and the command line's when it stops.
        "-p",
        "no:terminal",
        "--capture=no",
        # An interrupt in the middle of a hook is still one.
        "-Wignore::pluggy.PluggyTeardownRaisedWarning",
        # Those of the project's own tests, which the terminal plugin knows.
        "--override-ini=addopts=--strict-markers",
        f"--junitxml={run.folder / 'junit.xml'}",
        f"--virtflow-endpoints={plugin.cluster.folder / 'endpoints.json'}",
        f"--virtflow-run={record.id}",
        f"--virtflow-only={record.only}",
        f"--virtflow-report={run.folder}",
        *(["--virtflow-await-undone"] if record.stays else []),
    ]
    ended = pytest.main(arguments, plugins=[plugin])
    if plugin.stopped_by is not None:
        raise plugin.stopped_by
    plugin.blame_cluster()
    code = worst(plugin.failures)
    if ended != (pytest.ExitCode.TESTS_FAILED if plugin.failures else pytest.ExitCode.OK):
        raise RuntimeError(f"pytest ended with {ended!r}, although this run's code is {code!r}")
    return code


class _Plugin:
    """A pytest plugin: brings the cluster up when there is something to run, and keeps what went wrong."""

    def __init__(self, cluster: LocalCluster, run: Run) -> None:
        self.cluster = cluster
        self.run = run
        self.began = False
        self.failures: list[ExitCode] = []
        self.stopped_by: BaseException | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if self.stopped_by is not None:
            return
        if not self.run.record.resumed:
            self.run.begin()
        self.began = True
        # But the last one, which sees that everything is undone.
        self.run.note(scenarios=len(session.items) - 1)
        was_up = self.cluster.is_up()
        self.cluster.up(before_work=lambda endpoints: asyncio.run(_announce(endpoints, self.run.unfinished)))
        if was_up:
            self.cluster.restart_worker()
        self.run.note(cluster_id=self.cluster.identity())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a scenario that is only told again, what went wrong in it goes with the report."""
        earlier: Sequence[ExitCode] = getattr(report, "exit_codes", ())
        self.failures += earlier

    def pytest_exception_interact(
        self, call: pytest.CallInfo[object], report: pytest.CollectReport | pytest.TestReport
    ) -> None:
        assert call.excinfo is not None
        if isinstance(report, pytest.TestReport):
            self.failures.append(code_of(call.excinfo.value))
        else:
            self._stop(call.excinfo.value)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._stop(excinfo.value)

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        self._stop(excinfo.value)
        return True  # else pytest would print it, too

    @pytest.hookimpl(wrapper=True)
    def pytest_load_initial_conftests(self) -> Generator[None]:
        try:
            return (yield)
        except Exception as error:
            self._stop(error.__cause__ or error)
            raise pytest.UsageError from error  # which, without words, it ends by in silence

    def blame_cluster(self) -> None:
        """A failure on a cluster whose components are not all there says nothing about what is tested."""
        # The worker was started by this run: a short one ends before the supervisor has seen enough of it.
        there = ("STARTING", "RUNNING")
        missing = [component.name for component in self.cluster.status() if component.state not in there]
        if self.failures and missing:
            self.failures.append(ExitCode.INFRASTRUCTURE)
            names = ", ".join(missing)
            console.print(
                f"Not running: {names}. So it may be the cluster that failed; its logs are kept.", style="red"
            )

    def _stop(self, error: BaseException) -> None:
        self.stopped_by = self.stopped_by or error


async def _announce(endpoints: Endpoints, sessions: Sequence[str]) -> None:
    """Tell these sessions that they are not alone, before there is a worker: it would find the idle timer overdue.

    Raises InfrastructureError if there is no Temporal within a minute: it may just have been started.
    """
    deadline = time.monotonic() + TEMPORAL_LIMIT.total_seconds()
    while sessions:
        try:
            temporal = await connect(endpoints)
            with answering():
                for session in sessions:
                    await _tell(temporal.get_workflow_handle_for(Scenario.run, session))
        except InfrastructureError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(POLL.total_seconds())
        else:
            return


async def _tell(session: WorkflowHandle[Scenario, list[str]]) -> None:
    try:
        await session.signal(Scenario.resume)
    except RPCError as error:
        # Undone meanwhile, or never started: that is for its scenario to say.
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


def code_of(error: BaseException) -> ExitCode:
    """What an error that ends a scenario or a run makes of its exit code."""
    if isinstance(error, VirtflowError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if isinstance(error, AssertionError | pytest.fail.Exception) else ExitCode.BUG


def keep_logs(cluster: LocalCluster, folder: Path) -> None:
    """The end of each component's log, for whoever reads the report when the cluster is gone."""
    if not cluster.folder.exists():
        return
    folder.mkdir(exist_ok=True)
    for component in cluster.status():
        if component.log.exists():
            lines = component.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            (folder / f"{component.name}.log").write_text("\n".join(lines) + "\n")
    access_log = cluster.folder / "logs" / "gateway-access.log"
    if access_log.exists():
        shutil.copy(access_log, folder)
