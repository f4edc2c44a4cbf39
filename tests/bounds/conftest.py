"""Fixtures: one system and one order receiver for the tests of this folder that leave them as they found them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.system.processes import System, running_system
from tests.support.webhook_receivers.order_receiver import OrderReceiver, running_order_receiver


@pytest_asyncio.fixture(scope="package")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("bounds")) as running:
        yield running


@pytest_asyncio.fixture
async def orders() -> AsyncIterator[OrderReceiver]:
    async with running_order_receiver() as running:
        yield running
