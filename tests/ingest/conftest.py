from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ingest.world import World, running_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Ingest and registry, running for one test."""
    async with running_world(tmp_path) as running:
        yield running
