"""One benchmark: a cluster of its own, the measurements in turn, a table, and a file with everything behind it."""

import asyncio
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from clusters.local import LocalCluster
from virtflow.bench.figures import Figure, Figures
from virtflow.bench.measure import Bench
from virtflow.bench.stand_in import measure_stand_in
from virtflow.errors import VirtflowError
from virtflow.interrupts import undo
from virtflow.settings import Settings
from virtflow.temporal import answering
from virtflow.terminal import console, phase

__all__ = ["run_bench"]


def run_bench(settings: Settings, *, most: int, rounds: int) -> int:
    """Measure and report. `most` is how many virtual machines are created at once in the end, `rounds` how often the
    comparisons are repeated."""
    run_id = datetime.now(UTC).strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}"
    report = Path.cwd() / "reports" / f"bench-{run_id}"
    report.mkdir(parents=True)
    figures = Figures(report / "bench.json")
    # A node of the local cluster has 64 cores, and each virtual machine asks for one.
    nodes = max(settings.nodes, most // 50)
    settings = settings.model_copy(update={"cluster": f"{settings.cluster}-bench", "nodes": nodes})
    cluster = LocalCluster(settings)
    cluster.down()
    try:
        figures.add(Figure("virtflow up, toolchain in the cache", _timed(settings, "up"), "s", goal=15))
        with answering():
            asyncio.run(_measure(cluster, figures, run_id, most, rounds))
        figures.add(Figure("virtflow down", _timed(settings, "down"), "s", goal=3))
        figures.add(Figure("virtflow e2e, with its own up and down", _timed(settings, "e2e"), "s", goal=240))
    finally:
        undo(f"Taking down cluster {cluster.name}", cluster.down)
        console.print()
        console.print(figures.table())
        console.print(f"\nReport: {report / 'bench.json'}", markup=False)
    return 0


async def _measure(cluster: LocalCluster, figures: Figures, run_id: str, most: int, rounds: int) -> None:
    await measure_stand_in(cluster, figures, run_id, most)
    await Bench(cluster, figures, run_id).measure(most, rounds)


def _timed(settings: Settings, command: str) -> float:
    """Seconds that a command takes as a user has it, interpreter and imports included."""
    environment = {
        **os.environ,
        "VIRTFLOW_CLUSTER": settings.cluster,
        "VIRTFLOW_STATE_HOME": str(settings.state_home),
        "VIRTFLOW_TOOLCHAIN": settings.toolchain,
        "VIRTFLOW_NODES": str(settings.nodes),
        "VIRTFLOW_KEEP": "0",
    }
    with phase(f"virtflow {command}"):
        began = time.monotonic()
        result = subprocess.run(
            [sys.executable, "-m", "virtflow", command], env=environment, capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise VirtflowError(
                f"`virtflow {command}` ended with {result.returncode}:\n{result.stdout}{result.stderr}"
            )
        return time.monotonic() - began
