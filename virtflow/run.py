"""One run of the features: the cluster it needs, pytest on tests/e2e, and the report it leaves."""

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clusters.local import LocalCluster
from virtflow.settings import Settings
from virtflow.terminal import console, phase

__all__ = ["run_features"]

ROOT = Path(__file__).parents[1]
LOG_LINES = 2000
INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended."""


def run_features(settings: Settings, *, keep: bool, only: str) -> int:
    """Run and report; return pytest's exit code. What was started is taken down, also after Ctrl-C."""
    run_id = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    report = Path.cwd() / "reports" / run_id
    report.mkdir(parents=True)
    cluster = LocalCluster(settings)
    started_here = not cluster.is_up()
    began = time.monotonic()
    code = 1
    try:
        cluster.up()
        if not started_here:
            cluster.restart_worker()
        console.print()
        code = _run_pytest(cluster, run_id, report, only)
    finally:
        if code != 0:
            _keep_logs(cluster, report / "logs")
        if started_here and not keep:
            with phase(f"Taking down cluster {cluster.name}"):
                cluster.down()
        console.print(f"\nReport: {report}  ({time.monotonic() - began:.0f} s)", markup=False)
    return code


def _run_pytest(cluster: LocalCluster, run_id: str, report: Path, only: str) -> int:
    arguments = [
        str(ROOT / "tests" / "e2e"),
        f"--rootdir={ROOT}",
        f"--config-file={ROOT / 'pyproject.toml'}",
        # Only what a run needs: a plugin that happens to be installed must not change what is tested.
        "--disable-plugin-autoload",
        "-p",
        "pytest_bdd.plugin",
        "-q",
        "-s",
        # A step's failure was said when it happened; what fails outside of steps is still named, with its line.
        "--tb=line",
        "-rN",
        "--override-ini=console_output_style=classic",
        f"--junitxml={report / 'junit.xml'}",
        f"--virtflow-endpoints={cluster.folder / 'endpoints.json'}",
        f"--virtflow-run={run_id}",
        f"--virtflow-only={only}",
        f"--virtflow-report={report}",
    ]
    interrupts = _Interrupts()
    code = int(pytest.main(arguments, plugins=[interrupts]))
    return INTERRUPTED if interrupts.seen else code


class _Interrupts:
    """Whether Ctrl-C was pressed: pytest's own exit code for it is that of a feature it cannot read, too."""

    seen = False

    def pytest_keyboard_interrupt(self) -> None:
        self.seen = True


def _keep_logs(cluster: LocalCluster, folder: Path) -> None:
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
