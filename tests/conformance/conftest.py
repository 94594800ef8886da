"""All situations are played once, at the same time, before the first test that asks for one; a table at the end."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from clusters.endpoints import Endpoints
from tests.conformance.outcomes import Outcome, judge, table
from tests.conformance.play import Played, play
from tests.conformance.situations import chains, load_deviations

LOCALLY, ELSEWHERE = timedelta(seconds=60), timedelta(minutes=5)
"""How long a situation may take to settle. Real nodes pull images, and guests take their time to shut down."""


@dataclass(frozen=True)
class Target:
    """The cluster to judge."""

    name: str
    kubeconfig: Path
    audit_log: Path | None
    patience: timedelta


@dataclass(frozen=True)
class Performance:
    target: Target
    played: list[Played]

    def outcomes(self, *, watches_only: bool = False) -> dict[str, Outcome]:
        deviations = load_deviations()
        return {played.situation.name: judge(played, deviations, watches_only=watches_only) for played in self.played}


PERFORMANCE = pytest.StashKey[Performance]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance", "conformance of what plays KubeVirt")
    group.addoption("--kubeconfig", type=Path, help="of the cluster to judge, instead of the local one")
    group.addoption("--audit-log", type=Path, help="of that cluster's kube-apiserver, with the bodies of writes")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    kubeconfig: Path | None = request.config.getoption("--kubeconfig")
    if kubeconfig:
        return Target(
            f"KubeVirt on the cluster of {kubeconfig}", kubeconfig, request.config.getoption("--audit-log"), ELSEWHERE
        )
    local: Endpoints = request.getfixturevalue("endpoints")
    return Target(f"KubeVirt on the local cluster: {local.kubevirt}", local.kubeconfig, local.audit_log, LOCALLY)


@pytest.fixture(scope="session")
def performance(request: pytest.FixtureRequest, target: Target) -> Performance:
    played = asyncio.run(play(chains(), target.kubeconfig, target.audit_log, target.patience))
    return request.config.stash.setdefault(PERFORMANCE, Performance(target, played))


@pytest.fixture(scope="session")
def outcomes(performance: Performance) -> dict[str, Outcome]:
    return performance.outcomes()


@pytest.fixture(scope="session")
def outcomes_by_watches(performance: Performance) -> dict[str, Outcome]:
    return performance.outcomes(watches_only=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    performance = config.stash.get(PERFORMANCE, None)
    if performance is None:
        return
    terminalreporter.section("conformance")
    terminalreporter.write_line(performance.target.name)
    outcomes = list(performance.outcomes().values())
    for line in table(outcomes, load_deviations(), watches_only=performance.target.audit_log is None):
        terminalreporter.write_line(line)
