"""Stores: one ledger of each engine, which a test opens, fills and looks into from beside."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from services.delivery.ledger.protocol import GroupCursor, Ledger
from services.delivery.ledger.rows import DONE_COLUMNS, OPEN_COLUMNS, DoneRow, EndedRow, JobRow, OpenRow, RangeRow, decode_record
from services.delivery.ledger.sqlite import cursor_groups, queries, ranges
from services.delivery.ledger.sqlite.day_tables import stored_days, table_of
from services.delivery.ledger.sqlite.id_collisions import DeliveryId
from services.delivery.ledger.sqlite.ledger import SqliteLedger, open_ledger
from services.delivery.model import State, delivery_id
from services.eventlog.record import Record, ShardPosition
from services.runtime.database import connect


class LedgerStore(Protocol):
    """Where one ledger is kept. All reads need no event loop; they are for a store that is open."""

    def open(self) -> AbstractAsyncContextManager[Ledger]:
        """Open the ledger as the service does; create it the first time."""
        ...

    def open_beside(self) -> AbstractAsyncContextManager[Ledger]:
        """Open a ledger that is open already, as a second process could if no lock held it back."""
        ...

    async def fill(self, ledger: Ledger, *, full: bool) -> None:
        """Fill the disk of a ledger, or make room again."""
        ...

    def back_up(self) -> None:
        """Keep a copy of a ledger that is closed."""
        ...

    def restore(self) -> None:
        """Replace a ledger that is closed by its copy."""
        ...

    def remove(self) -> None:
        """Remove a ledger that is closed, so that the next one begins anew."""
        ...

    def bound_listings(self, patch: pytest.MonkeyPatch, *, rows: int, steps: int) -> None:
        """Let a page end after so many steps, which examine so many rows each; this lasts until the test ends."""
        ...

    def open_rows(self) -> list[OpenRow]:
        """Return all unfinished deliveries."""
        ...

    def has_open_row(self, delivery_id: bytes) -> bool:
        """Return whether a delivery is in the ledger as unfinished."""
        ...

    def done_rows(self) -> list[DoneRow]:
        """Return all finished deliveries."""
        ...

    def has_done_row(self, delivery_id: bytes) -> bool:
        """Return whether a delivery is in the ledger as finished."""
        ...

    def ends(self) -> list[tuple[bytes, State, int]]:
        """Return of each finished delivery its id, its state and the number of attempts."""
        ...

    def cursor(self) -> GroupCursor:
        """Return the cursor of the first group."""
        ...

    def split(self, group: GroupCursor, slots: Iterable[int]) -> None:
        """Give some slots to a further group, as a cut of ledgers does."""
        ...

    def ranges(self) -> list[RangeRow]:
        """Return all owed ranges."""
        ...

    def ended(self, subscription_id: str) -> list[EndedRow]:
        """Return a subscription's ended ranges."""
        ...

    def jobs(self) -> list[JobRow]:
        """Return all jobs."""
        ...

    def set_aside(self) -> set[str]:
        """Return the ids of all events that are set aside."""
        ...

    def copies(self) -> dict[ShardPosition, Record]:
        """Return all events of which the ledger has copies, in the order of their places."""
        ...


class SqliteStore:
    """The `LedgerStore` of a SQLite file."""

    def __init__(self, path: Path, delivery_id: DeliveryId = delivery_id) -> None:
        self.path = path
        self._delivery_id = delivery_id
        self._reading: sqlite3.Connection | None = None

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SqliteLedger]:
        """See `LedgerStore.open`."""
        async with open_ledger(self.path, self._delivery_id) as ledger:
            with contextlib.closing(connect(self.path, read_only=True)) as self._reading:
                yield ledger

    @contextlib.asynccontextmanager
    async def open_beside(self) -> AsyncIterator[SqliteLedger]:
        """See `LedgerStore.open_beside`."""
        second = SqliteLedger(self.path)
        try:
            yield second
        finally:
            await second.close()

    async def fill(self, ledger: Ledger, *, full: bool) -> None:
        """See `LedgerStore.fill`; a few more pages fit. A disk fills whether or not a worker holds the lease."""

        def limit(connection: sqlite3.Connection) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0] if full else 1 << 30
            connection.execute(f"PRAGMA max_page_count = {pages}")

        assert isinstance(ledger, SqliteLedger)
        await asyncio.get_running_loop().run_in_executor(ledger._writer, limit, ledger._connection)  # noqa: SLF001 - the ledger needs no way

    def back_up(self) -> None:
        """See `LedgerStore.back_up`."""
        shutil.copy(self.path, self.path.with_name("copy.db"))

    def restore(self) -> None:
        """See `LedgerStore.restore`."""
        for left in self.path.parent.glob(f"{self.path.name}-*"):
            left.unlink()
        shutil.copy(self.path.with_name("copy.db"), self.path)

    def remove(self) -> None:
        """See `LedgerStore.remove`."""
        for left in self.path.parent.glob(f"{self.path.name}*"):
            left.unlink()

    def bound_listings(self, patch: pytest.MonkeyPatch, *, rows: int, steps: int) -> None:
        """See `LedgerStore.bound_listings`."""
        patch.setattr(queries, "_EXAMINED_STEP", rows)
        patch.setattr(queries, "_STEPS_MAX", steps)

    def open_rows(self) -> list[OpenRow]:
        """See `LedgerStore.open_rows`."""
        return [OpenRow(*row) for row in self.rows(f"SELECT {', '.join(OPEN_COLUMNS)} FROM open")]  # noqa: S608 - constants

    def has_open_row(self, delivery_id: bytes) -> bool:
        """See `LedgerStore.has_open_row`."""
        return bool(self.rows("SELECT 1 FROM open WHERE id = ?", delivery_id))

    def done_rows(self) -> list[DoneRow]:
        """See `LedgerStore.done_rows`."""
        query = f"SELECT {', '.join(DONE_COLUMNS)} FROM"
        return [DoneRow(*row) for table in self.day_tables() for row in self.rows(f"{query} {table}")]

    def has_done_row(self, delivery_id: bytes) -> bool:
        """See `LedgerStore.has_done_row`."""
        return any(self.rows(f"SELECT 1 FROM {table} WHERE id = ?", delivery_id) for table in self.day_tables())  # noqa: S608 - a table of ours

    def ends(self) -> list[tuple[bytes, State, int]]:
        """See `LedgerStore.ends`."""
        rows = (row for table in self.day_tables() for row in self.rows(f"SELECT id, state, attempt_count FROM {table}"))  # noqa: S608 - ours
        return [(delivery_id, State(state), attempts) for delivery_id, state, attempts in rows]

    def ranges(self) -> list[RangeRow]:
        """See `LedgerStore.ranges`."""
        assert self._reading is not None
        return ranges.ranges(self._reading)

    def ended(self, subscription_id: str) -> list[EndedRow]:
        """See `LedgerStore.ended`."""
        assert self._reading is not None
        return ranges.ended_of(self._reading, subscription_id)

    def jobs(self) -> list[JobRow]:
        """See `LedgerStore.jobs`."""
        assert self._reading is not None
        return ranges.jobs(self._reading)

    def set_aside(self) -> set[str]:
        """See `LedgerStore.set_aside`."""
        return {event_id for (event_id,) in self.rows("SELECT event_id FROM set_aside")}

    def cursor(self) -> GroupCursor:
        """See `LedgerStore.cursor`."""
        assert self._reading is not None
        return cursor_groups.first_cursor(self._reading)

    def split(self, group: GroupCursor, slots: Iterable[int]) -> None:
        """See `LedgerStore.split`."""
        _, *arrays = map(json.dumps, zip(*group.shards, strict=True))
        with contextlib.closing(connect(self.path)) as connection:
            connection.execute("INSERT INTO groups VALUES (?, ?, ?, ?)", (group.group_id, *arrays))
            connection.executemany("UPDATE slots SET group_id = ? WHERE slot = ?", [(group.group_id, slot) for slot in slots])

    def copies(self) -> dict[ShardPosition, Record]:
        """See `LedgerStore.copies`."""
        rows = self.rows("SELECT shard, position, record FROM payloads ORDER BY shard, position")
        return {ShardPosition(shard, position): decode_record(raw) for shard, position, raw in rows}

    def day_tables(self) -> list[str]:
        """Return the tables of finished deliveries, the newest day first."""
        assert self._reading is not None
        return [table_of(day) for day in stored_days(self._reading)]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        assert self._reading is not None
        return self._reading.execute(query, values).fetchall()
