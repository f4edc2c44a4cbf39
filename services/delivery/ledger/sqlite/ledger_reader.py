"""Ledger reader: reads deliveries from a ledger file that this process does not own.

front_server → ledger_fallback → [ledger_reader] → queries, ranges
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from services.delivery.ledger.protocol import Listing, Page
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.ledger.sqlite import queries, ranges
from services.delivery.model import State
from services.runtime.consumer_scope import Scope
from services.runtime.listing_reader import Budget, ListingReader


class LedgerReader:
    """The deliveries of one ledger file; made by `open_ledger_reader`."""

    def __init__(self, reader: ListingReader) -> None:
        self._reader = reader

    async def find(self, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
        """See `Ledger.find`."""
        return await self._reader.read(scope.text, queries.find, scope, delivery_id)

    async def page(self, listing: Listing) -> Page:
        """See `Ledger.page`."""
        return await self._reader.read(listing.scope.text, lambda connection: queries.page(connection, listing, Budget()))

    async def ended_totals(self, scope: Scope, subscription_id: str) -> dict[State, int]:
        """See `Ledger.ended_totals`."""
        return await self._reader.read(scope.text, ranges.ended_totals, scope, subscription_id)


@contextlib.asynccontextmanager
async def open_ledger_reader(path: Path) -> AsyncIterator[LedgerReader]:
    """Open a ledger file for reading. Raises `StartError` if there is no such file, or if it cannot be read."""
    reader = await asyncio.to_thread(ListingReader, path)
    try:
        yield LedgerReader(reader)
    finally:
        await reader.close()
