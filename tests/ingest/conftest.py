from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ingest.counted_registry import Asking, Counted, asking_registry, counted_registry
from tests.ingest.world import World, running_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Ingest and registry, running for one test."""
    async with running_world(tmp_path) as running:
        yield running


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    """A registry that counts, running for one test."""
    async with counted_registry() as running:
        yield running


@pytest.fixture
async def asking(counted: Counted) -> AsyncIterator[Asking]:
    """A client of the counting registry."""
    async with asking_registry(counted) as client:
        yield client
