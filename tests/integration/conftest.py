"""Parts of the one cluster, by what the tests need of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clusters.endpoints import Endpoints
from clusters.local.toolchain import find_toolchain
from tests.integration.support import Tenant, tenant_on
from virtflow.settings import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exits", type=int, default=8, help="how often test_exits.py runs each command")


@pytest.fixture(scope="session")
def kubeconfig(endpoints: Endpoints) -> Path:
    return endpoints.kubeconfig


@pytest.fixture(scope="session")
def gateway_url(endpoints: Endpoints) -> str:
    return endpoints.gateway_url


@pytest.fixture(scope="session")
def guests_url(endpoints: Endpoints) -> str:
    return endpoints.guests_url


@pytest.fixture(scope="session")
def ca_cert(endpoints: Endpoints) -> Path:
    return endpoints.ca_cert


@pytest.fixture(scope="session")
def audit_log(endpoints: Endpoints) -> Path:
    return endpoints.audit_log


@pytest.fixture(scope="session")
def access_log(endpoints: Endpoints) -> Path:
    return endpoints.access_log


@pytest.fixture(scope="session")
def kubectl(settings: Settings) -> Path:
    return find_toolchain(settings.toolchain, settings.cache_home, settings.mirror).program("kubectl")


@pytest.fixture
async def tenant(kubeconfig: Path) -> AsyncIterator[Tenant]:
    async with tenant_on(kubeconfig) as tenant:
        yield tenant
