"""What becomes of a play that cannot go on, on a running cluster."""

import asyncio
from pathlib import Path

import pytest

from clusters.endpoints import ClusterError
from tests.conformance.conftest import Target
from tests.conformance.play import play
from tests.conformance.situations import Situation, load_situations


def test_a_chain_that_cannot_go_on_says_why(target: Target) -> None:
    impossible = Situation("first", "nothing is deleted", {"delete": "Pod none"}, {})
    following = Situation("second", "nor here", {"delete": "Pod none"}, {}, after="first")
    played = asyncio.run(play([[impossible, following]], target.kubeconfig, target.audit_log, target.patience))
    failures = {each.situation.name: each.failure for each in played}
    assert failures == dict.fromkeys(("first", "second"), "it could not be played: there is no Pod none")


def test_the_audit_log_of_another_cluster_is_refused(target: Target, tmp_path: Path) -> None:
    chain = [each for each in load_situations() if each.name == "07-vm-unschedulable"]
    with pytest.raises(ClusterError, match="has 0 of the 1 writes"):
        asyncio.run(play([chain], target.kubeconfig, tmp_path / "audit.log", target.patience))
