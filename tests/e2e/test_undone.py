"""The last word of a run: pytest takes files by name, so this follows the features.

A namespace takes Kubernetes at least five seconds to delete. Waiting for each after its scenario would take
longer than the scenarios.
"""

import pytest
from anyio.from_thread import BlockingPortal

from clusters.endpoints import Endpoints
from tests.e2e.conftest import Session, what_is_left
from virtflow.errors import LeftBehindError


def test_everything_is_undone(
    sessions: list[Session], portal: BlockingPortal, endpoints: Endpoints, pytestconfig: pytest.Config
) -> None:
    run: str = pytestconfig.getoption("--virtflow-run")
    if left := what_is_left(portal, sessions, endpoints.kubeconfig, run):
        raise LeftBehindError(
            f"Cleanup left something behind: {'; '.join(left)}. `virtflow gc --run {run}` lists all of it."
        )
