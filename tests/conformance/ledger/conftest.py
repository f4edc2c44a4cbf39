"""Fixtures: the engines of the ledger; every test of the ledger's Protocol runs over all of them."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.delivery.ledger.protocol import Ledger
from tests.delivery.ledger.stores import LedgerStore, SqliteStore


@pytest.fixture(params=[SqliteStore], ids=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerStore:
    """The place of this test's ledger."""
    engine: Callable[[Path], LedgerStore] = request.param
    return engine(tmp_path / "delivery.db")


@pytest.fixture
async def ledger(store: LedgerStore) -> AsyncIterator[Ledger]:
    """A new ledger with its lease taken."""
    async with store.open() as opened:
        await opened.take_lease("one")
        yield opened
