"""An attacker and a victim on the real gateway, and what is known of both at the end.

The attacker has every right in its own namespace that the gateway has words for: RBAC keeps nothing from it there, so
what it reaches elsewhere it has through the gateway.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from clusters.endpoints import Endpoints
from clusters.local import ComponentStatus, LocalCluster
from tests.attack.breaches import Account
from tests.attack.disorder import disorder
from tests.attack.figures import Figures
from tests.attack.parties import Objects, Platform, machine, victims_objects
from tests.attack.wire import Answer, Header, Wire
from virtflow.kube.resources import VMS

FIGURES = pytest.StashKey[Figures]()


class Token(str):
    """A bearer token that no failed assertion shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<a token>"


@dataclass(repr=False)
class Battle:
    """The attacker with its token, the victim beside it, and how everything was before."""

    attacker: Account
    token: str
    victim: Account
    victims_token: str
    objects: Objects
    audit_offset: int
    gateway: ComponentStatus
    figures: Figures
    senders: dict[str, Account] = field(default_factory=dict)
    """By request id, of requests with another token than the attacker's."""

    tokens: set[str] = field(default_factory=set)
    """That were sent, and are to be in no log."""
    refused: set[str] = field(default_factory=set)
    """Request ids of what was answered with 401."""

    @property
    def bearer(self) -> Header:
        return ("Authorization", Token(f"Bearer {self.token}"))

    def witness_of(self, sender: Account) -> Callable[[str, Answer], None]:
        """Counts each answer, and raises AssertionError for one that may not be."""

        def witness(kind: str, answer: Answer) -> None:
            self.figures.count(kind, answer.code, answer.seconds)
            if answer.code == 401:
                self.refused.add(answer.request_id)
            if sender != self.attacker:
                self.senders[answer.request_id] = sender
            wrong = disorder(answer, sender)
            assert wrong is None, f"{wrong}\n{answer.code} {answer.headers}{answer.body[:2000]!r}"

        return witness


@pytest.fixture(scope="session")
def platform(endpoints: Endpoints) -> Iterator[Platform]:
    with Platform.of(endpoints.kubeconfig) as platform:
        yield platform


@pytest.fixture(scope="session")
def battle(
    request: pytest.FixtureRequest, cluster: LocalCluster, endpoints: Endpoints, platform: Platform
) -> Iterator[Battle]:
    with platform.tenant("victim") as victim, platform.tenant("attacker") as attacker:
        victims_objects(platform, victim.namespace)
        for name in ("kept", "own"):
            platform.create(VMS, machine(name), attacker.namespace)
        gateway = gateway_of(cluster)
        figures = request.config.stash[FIGURES] = Figures()
        figures.memory = (memory_of(gateway), 0)
        yield Battle(
            attacker,
            platform.token(attacker),
            victim,
            platform.token(victim),
            platform.objects(),
            endpoints.audit_log.stat().st_size,
            gateway,
            figures,
        )


@pytest.fixture(scope="session")
def wire(battle: Battle, endpoints: Endpoints) -> Iterator[Wire]:
    """The attacker's connections."""
    wire = Wire(endpoints.gateway_url, endpoints.ca_cert, battle.witness_of(battle.attacker))
    yield wire
    wire.close()


def gateway_of(cluster: LocalCluster) -> ComponentStatus:
    (gateway,) = (status for status in cluster.status() if status.name == "gateway")
    return gateway


def memory_of(gateway: ComponentStatus) -> int:
    assert gateway.pid is not None
    return int(psutil.Process(gateway.pid).memory_info().rss)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = terminalreporter.config.stash.get(FIGURES, None)
    if figures is not None and figures.requests:
        terminalreporter.section("the gateway under attack")
        for line in figures.table():
            terminalreporter.line(line)
