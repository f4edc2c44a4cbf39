"""Ledger fallback: reads deliveries from the ledger files of workers that are away, and of former workers.

front_server → [ledger_fallback] → ledger/sqlite/ledger_reader

Law 1: a file is only read. A file that cannot be read is logged and has no rows.
Law 2: few files are read at once, and callers of different scopes take turns.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from services.delivery.ledger.protocol import Listing, Page
from services.delivery.ledger.rows import DoneRow, OpenRow
from services.delivery.ledger.sqlite.ledger_files import ledger_file, numbers_there
from services.delivery.model import State
from services.runtime.consumer_scope import Scope
from services.runtime.errors import Failure, Reason
from services.runtime.fair_semaphore import FairSemaphore, PermitRefusedError, Share
from services.runtime.logs import logger
from services.runtime.service_process import StartError

_READS = Share(permits=4, owner_permits=2)
# One call may read sixteen files.
_SCOPE_WAITING_MAX = 512
_WITHIN_S = 5.0
_Result = TypeVar("_Result")


class LedgerReader(Protocol):
    """The deliveries of one file."""

    async def find(self, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
        """See `Ledger.find`."""
        ...

    async def page(self, listing: Listing) -> Page:
        """See `Ledger.page`."""
        ...

    async def ended_totals(self, scope: Scope, subscription_id: str) -> dict[State, int]:
        """See `Ledger.ended_totals`."""
        ...


OpenReader = Callable[[Path], AbstractAsyncContextManager[LedgerReader]]


class LedgerFallback:
    """The ledger files of one data directory, by the numbers of their workers."""

    def __init__(self, database: Path, workers: int, open_reader: OpenReader) -> None:
        self._database = database
        self._workers = workers
        self._open_reader = open_reader
        self._reads = FairSemaphore(_READS, owner_waiting_max=_SCOPE_WAITING_MAX)

    def former(self) -> Sequence[int]:
        """Return the numbers of the files that no worker owns any more."""
        return [number for number in sorted(numbers_there(self._database)) if number >= self._workers]

    async def find(self, number: int, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
        """Return one delivery; None if the file does not have it, or cannot be read."""
        return await self._read(number, scope, lambda reading: reading.find(scope, delivery_id))

    async def page(self, number: int, listing: Listing) -> Page | None:
        """Return a page of deliveries; None if the file cannot be read."""
        return await self._read(number, listing.scope, lambda reading: reading.page(listing))

    async def ended_totals(self, number: int, listing: Listing) -> dict[State, int]:
        """Return about how many deliveries of a listing have ended without rows, by state; none if the file cannot be read."""
        if listing.event_id or listing.state is State.PENDING:
            return {}
        totals = await self._read(number, listing.scope, lambda reading: reading.ended_totals(listing.scope, listing.subscription_id))
        return {state: about for state, about in (totals or {}).items() if listing.state in {None, state}}

    async def _read(self, number: int, scope: Scope, read: Callable[[LedgerReader], Awaitable[_Result]]) -> _Result | None:
        """Return the answer of a file; None if it cannot be read. Raises `Failure` OVERLOADED if too many reads of the scope wait."""
        path = ledger_file(self._database, number)
        try:
            async with (
                self._reads.permit(scope.text, _WITHIN_S),
                asyncio.timeout(_WITHIN_S),
                self._open_reader(path) as reading,
            ):
                return await read(reading)
        except PermitRefusedError:
            raise Failure(Reason.OVERLOADED, "Too many lists are being read; try again.", retry_after_s=1.0) from None
        except (StartError, sqlite3.Error, TimeoutError) as error:
            logger().warning("ledger_file.unreadable", worker=number, reason=str(error) or "it did not answer in time")
            return None
