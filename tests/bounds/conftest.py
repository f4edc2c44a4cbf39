"""Fixtures: one system and one order receiver for the tests of this folder that leave them as they found them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.order_receiver import Catcher, catching
from tests.support.system import System, running_system


@pytest_asyncio.fixture(scope="package")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("bounds")) as running:
        yield running


@pytest_asyncio.fixture
async def catcher() -> AsyncIterator[Catcher]:
    async with catching() as running:
        yield running
