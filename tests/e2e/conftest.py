"""Fixtures: one system for the tests that leave it as they found it; its processes start as an operator starts them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.system.processes import System, running_system
from tests.support.webhook_receivers.receiver import Receiver


@pytest_asyncio.fixture(scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    path: Path = tmp_path_factory.mktemp("system")
    async with running_system(path) as running:
        yield running


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as running:
        yield running
