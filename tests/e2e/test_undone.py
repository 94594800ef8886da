"""The last word of a run: pytest takes files by name, so this follows the features.

A namespace takes Kubernetes at least five seconds to delete. Waiting for each after its scenario would take
longer than the scenarios.
"""

import pytest
from anyio.from_thread import BlockingPortal

from clusters.endpoints import Endpoints
from tests.e2e.conftest import Session
from virtflow.errors import LeftBehindError
from virtflow.leftovers import left_by


def test_everything_is_undone(
    sessions: list[Session], portal: BlockingPortal, endpoints: Endpoints, pytestconfig: pytest.Config
) -> None:
    run: str = pytestconfig.getoption("--virtflow-run")
    left = [line for session in sessions for line in session.left(endpoints.kubeconfig)]
    # What no session knew of is there all the same, and has the label.
    left = left or portal.call(left_by, endpoints.kubeconfig, run)
    if left:
        raise LeftBehindError(
            f"Cleanup left something behind: {'; '.join(left)}. `virtflow gc --run {run}` lists all of it."
        )
