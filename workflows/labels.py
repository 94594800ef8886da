"""The labels on everything that a run makes: by them cleanup, a retry and `virtflow gc` find it again.

`virtflow gc` deletes what carries them. So they belong on nothing that was there before the run: not on a node that
a scenario lets fail, say.
"""

import hashlib

__all__ = ["RUN", "SCENARIO", "labels_of", "run_of"]

RUN = "virtflow.io/run"
SCENARIO = "virtflow.io/scenario"


def labels_of(workflow_id: str) -> dict[str, str]:
    """Of what the workflow of this id, a scenario's or a journey's, makes: derived, so that a retry finds it."""
    return {RUN: run_of(workflow_id), SCENARIO: hashlib.sha256(workflow_id.encode()).hexdigest()[:8]}


def run_of(workflow_id: str) -> str:
    """Ids of workflows begin with their run's, up to the first slash."""
    return workflow_id.partition("/")[0]
