"""Former ledgers: the finished deliveries in ledger files that a cut has left without an owner.

retention_loop, listings → ledger → [former_ledgers: ledger_files] → queries

The worker of the first file trims these files, and removes each with its last day. A worker that is alone also lists their deliveries. If
there are several workers, their parent lists them.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from services.delivery.ledger.protocol import Listing, Page
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.ledger.sqlite import queries
from services.delivery.ledger.sqlite.ledger_files import former_files, stored_map, trim_former
from services.runtime.consumer_scope import Scope
from services.runtime.listing_reader import Budget, ListingReader


class FormerLedgers:
    """The former files beside the first worker's ledger file. Every other worker has none."""

    def __init__(self, database: Path) -> None:
        ledgers = stored_map(database)
        self._paths = former_files(database, ledgers) if ledgers.generation else []
        self._readers = {path: ListingReader(path) for path in self._paths if ledgers.workers == 1}

    async def find(self, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
        """See `Ledger.find`."""
        for reader in list(self._readers.values()):
            if (found := await reader.read(scope.text, queries.find, scope, delivery_id)) is not None:
                return found
        return None

    async def with_page(self, own: Page, listing: Listing) -> Page:
        """Return a page with the ledger's own deliveries and those of the former files."""
        if not self._readers:
            return own
        readers = self._readers.values()
        others = [await reader.read(listing.scope.text, lambda each: queries.page(each, listing, Budget())) for reader in list(readers)]
        return merged([*others, own], listing.limit)

    async def trim(self, before_day: str) -> int:
        """Drop finished deliveries of days before `before_day` (YYYYMMDD), and files with their last day; return how many were dropped."""
        dropped = 0
        for path in list(self._paths):
            dropped += await asyncio.to_thread(trim_former, path, before_day)
            if not path.exists():
                self._paths.remove(path)
                if (reader := self._readers.pop(path, None)) is not None:
                    await reader.close()
        return dropped

    async def close(self) -> None:
        """Close the files."""
        for reader in self._readers.values():
            await reader.close()


def merged(pages: Sequence[Page], limit: int) -> Page:
    """Merge pages into one. It ends where the first of them ends, so that no delivery is left out between two pages."""
    bottom = max((page.before_id for page in pages if page.before_id is not None), default=None)
    rows = {row.id: row for page in pages for row in page.rows if bottom is None or row.id >= bottom}
    newest = sorted(rows.values(), key=lambda row: row.id, reverse=True)
    return Page(newest[:limit], newest[limit - 1].id) if len(newest) > limit else Page(newest, bottom)
