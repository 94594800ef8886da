"""The last word of a run: pytest takes files by name, so this follows the features.

A namespace takes Kubernetes at least five seconds to delete. Waiting for each after its scenario would take
longer than the scenarios.
"""

from tests.e2e.conftest import Session
from virtflow.errors import LeftBehindError


def test_everything_is_undone(sessions: list[Session]) -> None:
    left = [line for session in sessions for line in session.left()]
    if left:
        raise LeftBehindError("Cleanup left something behind: " + "; ".join(left))
