"""Ledger reader: reads deliveries from a ledger file that this process does not own.

front_server → ledger_fallback → [ledger_reader] → queries, ranges

Law: due times are by the wall clock, since only the file's own worker knows the file's clock.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from services.delivery.ledger.protocol import Listing, Page
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.ledger.sqlite import queries, ranges
from services.delivery.ledger.sqlite.flush_writer import CLOCK_JUMPED
from services.delivery.model import State
from services.runtime.consumer_scope import Scope
from services.runtime.listing_reader import Budget, ListingReader


class LedgerReader:
    """The deliveries of one ledger file; made by `open_ledger_reader`."""

    def __init__(self, reader: ListingReader) -> None:
        self._reader = reader

    async def find(self, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
        """See `Ledger.find`."""
        return await self._reader.read(scope.text, _find, scope, delivery_id)

    async def page(self, listing: Listing) -> Page:
        """See `Ledger.page`."""
        return await self._reader.read(listing.scope.text, _page, listing)

    async def ended_totals(self, scope: Scope, subscription_id: str) -> dict[State, int]:
        """See `Ledger.ended_totals`."""
        return await self._reader.read(scope.text, ranges.ended_totals, scope, subscription_id)


def _find(connection: sqlite3.Connection, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
    found = queries.find(connection, scope, delivery_id)
    return None if found is None else _by_wall_clock(connection, [found])[0]


def _page(connection: sqlite3.Connection, listing: Listing) -> Page:
    page = queries.page(connection, listing, Budget())
    return page._replace(rows=_by_wall_clock(connection, page.rows))


def _by_wall_clock(connection: sqlite3.Connection, rows: Sequence[OpenRow | DoneRow]) -> list[OpenRow | DoneRow]:
    stored = connection.execute("SELECT value FROM meta WHERE name = ?", (CLOCK_JUMPED,)).fetchone()
    jumped_ms = 0 if stored is None else int(stored[0])
    return [row._replace(due_ms=row.due_ms + jumped_ms) if isinstance(row, OpenRow) and row.due_ms else row for row in rows]


@contextlib.asynccontextmanager
async def open_ledger_reader(path: Path) -> AsyncIterator[LedgerReader]:
    """Open a ledger file for reading. Raises `StartError` if there is no such file, or if it cannot be read."""
    reader = await asyncio.to_thread(ListingReader, path)
    try:
        yield LedgerReader(reader)
    finally:
        await reader.close()
