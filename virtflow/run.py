"""One run of the features: pytest on tests/e2e, the cluster it needs, and the report it leaves.

The cluster comes up after pytest has collected, so that nothing is started for a feature with a fault.
"""

import os
import shutil
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clusters.local import LocalCluster
from virtflow.errors import VirtflowError
from virtflow.exit_codes import ExitCode, worst
from virtflow.interrupts import undo
from virtflow.settings import Settings
from virtflow.terminal import console

__all__ = ["keep_logs", "run_features"]

ROOT = Path(__file__).parents[1]
LOG_LINES = 2000


def run_features(settings: Settings, *, keep: bool, only: str) -> ExitCode:
    """Run and report. What was started is taken down, also after an interrupt.

    Raises what kept pytest from running the scenarios: an InputError before anything has been started.
    """
    run_id = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    report = Path.cwd() / "reports" / run_id
    cluster = LocalCluster(settings)
    run = _Run(cluster, report)
    stays = keep or cluster.is_up()
    began = time.monotonic()
    code: ExitCode | None = None
    try:
        code = _run_pytest(run, run_id, only, stays)
    finally:
        try:
            if run.began and code != ExitCode.PASSED:
                keep_logs(cluster, report / "logs")
        finally:
            if run.began and not stays:
                interrupted = "Interrupted: taking" if isinstance(run.stopped_by, KeyboardInterrupt) else "Taking"
                undo(f"{interrupted} down cluster {cluster.name}", cluster.down)
        if not run.began:
            # pytest writes its own file also when it runs nothing.
            shutil.rmtree(report, ignore_errors=True)
        else:
            console.print(f"\nReport: {report}  ({time.monotonic() - began:.0f} s)", markup=False)
    return code


def _run_pytest(run: "_Run", run_id: str, only: str, stays: bool) -> ExitCode:
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
        f"--junitxml={run.report / 'junit.xml'}",
        f"--virtflow-endpoints={run.cluster.folder / 'endpoints.json'}",
        f"--virtflow-run={run_id}",
        f"--virtflow-only={only}",
        f"--virtflow-report={run.report}",
        *(["--virtflow-await-undone"] if stays else []),
    ]
    ended = pytest.main(arguments, plugins=[run])
    if run.stopped_by is not None:
        raise run.stopped_by
    run.blame_cluster()
    code = worst(run.failures)
    if ended != (pytest.ExitCode.TESTS_FAILED if run.failures else pytest.ExitCode.OK):
        raise RuntimeError(f"pytest ended with {ended!r}, although this run's code is {code!r}")
    return code


class _Run:
    """A pytest plugin: brings the cluster up when there is something to run, and keeps what went wrong."""

    def __init__(self, cluster: LocalCluster, report: Path) -> None:
        self.cluster = cluster
        self.report = report
        self.began = False
        self.failures: list[ExitCode] = []
        self.stopped_by: BaseException | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        if self.stopped_by is not None:
            return
        self.report.mkdir(parents=True)
        self.began = True
        was_up = self.cluster.is_up()
        self.cluster.up()
        if was_up:
            self.cluster.restart_worker()

    def pytest_exception_interact(
        self, call: pytest.CallInfo[object], report: pytest.CollectReport | pytest.TestReport
    ) -> None:
        assert call.excinfo is not None
        if isinstance(report, pytest.TestReport):
            self.failures.append(_code_of(call.excinfo.value))
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
        missing = [component.name for component in self.cluster.status() if component.state != "RUNNING"]
        if self.failures and missing:
            self.failures.append(ExitCode.INFRASTRUCTURE)
            names = ", ".join(missing)
            console.print(
                f"Not running: {names}. So it may be the cluster that failed; its logs are kept.", style="red"
            )

    def _stop(self, error: BaseException) -> None:
        self.stopped_by = self.stopped_by or error


def _code_of(error: BaseException) -> ExitCode:
    if isinstance(error, VirtflowError):
        return error.exit_code
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
