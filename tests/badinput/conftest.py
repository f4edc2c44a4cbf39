"""Fixtures: one system, as users meet it, for all tests of this folder; no test leaves anything that another test would notice."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.service_spawner import shared_spawner
from tests.support.system.processes import System, running_system


@pytest_asyncio.fixture(scope="package")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("badinput"), spawn=shared_spawner().spawn) as running:
        yield running
        # Whatever the tests sent, no service logged a fault of its own.
        for name in running.services:
            assert "Traceback" not in running.log(name), name
