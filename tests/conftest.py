"""One real local cluster for all tests that need one, in a folder with a space in its name."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from clusters.endpoints import Endpoints
from clusters.local import LocalCluster
from virtflow.settings import Settings

# How long an example takes says something of the machine, nothing of the code. A run says whether a change breaks
# something, so it takes the same examples each time; `make explore` looks for what nobody has thought of.
hypothesis.settings.register_profile(
    "virtflow", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "explore", hypothesis.settings.get_profile("virtflow"), derandomize=False, max_examples=2000, print_blob=True
)
# Of tests/attack/effort.py, for `make attack`.
hypothesis.settings.register_profile(
    "attack", hypothesis.settings.get_profile("virtflow"), max_examples=1000, print_blob=True
)
hypothesis.settings.load_profile("virtflow")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def settings() -> Iterator[Settings]:
    # Not pytest's own temporary folder: a Unix socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="virtflow test ") as folder:
        yield Settings(cluster="test", state_home=Path(folder))


@pytest.fixture(scope="session")
def cluster(settings: Settings) -> Iterator[LocalCluster]:
    cluster = LocalCluster(settings)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def endpoints(cluster: LocalCluster) -> Endpoints:
    return cluster.endpoints()
