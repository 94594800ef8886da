"""A short torture, as a user has it: a cluster of its own, a kill of each of the parts that keep something."""

import json
import os
import subprocess
import sys
from pathlib import Path

from clusters.local import LocalCluster
from virtflow.settings import Settings

ROOT = Path(__file__).parents[2]
VICTIMS = ("etcd", "kube-apiserver", "temporal", "worker", "gateway", "supervisord")
ENDS_WITHIN = 900
"""Some two minutes where nothing else runs. Every step in it has a limit of its own."""


def test_journeys_pass_whatever_is_killed_and_nothing_is_made_twice_or_left(
    settings: Settings, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "VIRTFLOW_CLUSTER": settings.cluster,
        "VIRTFLOW_STATE_HOME": str(settings.state_home),
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "virtflow", "torture", "--kills", "6", "--seed", "7", "--journeys", "3"]
    command += [word for victim in VICTIMS for word in ("--only", victim)]
    try:
        run = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=ENDS_WITHIN
        )
    finally:
        # Killed when its time is over, it would leave its cluster.
        LocalCluster(settings.model_copy(update={"cluster": f"{settings.cluster}-torture"})).down()
    assert run.returncode == 0, run.stdout + run.stderr
    (report,) = (tmp_path / "reports").iterdir()
    result = json.loads((report / "torture.json").read_text())
    assert {each["kill"]["victim"] for each in result["killed"]} == set(VICTIMS)
    outcomes = [each["journey"]["outcome"] for each in result["journeys"]]
    assert len(outcomes) >= 3
    assert [outcome["stopped_at"] for outcome in outcomes] == [None] * len(outcomes)
    assert sum("scaled in" in outcome["took"] for outcome in outcomes) >= 1
    assert (result["problems"], result["left"]) == ([], [])
