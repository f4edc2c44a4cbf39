from collections.abc import AsyncIterator

import pytest

from tests.gateway.world import World, running_world


@pytest.fixture(scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One running world for all tests of the gateway; each test makes what it needs in it."""
    async with running_world(tmp_path_factory.mktemp("registry")) as running:
        yield running
