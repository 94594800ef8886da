"""What several files of unit tests have in common."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.gateway_support import Setup, running_gateway


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Setup]:
    async with running_gateway(tmp_path) as setup:
        yield setup
