"""Ledger: in SQLite, one process opens the file, and one thread writes it; each transaction first checks the lease.

recorder, retention_loop, repair → [ledger: flush_writer, retention, repair]; lane_refill, server → [ledger: queries, ranges, lane_tables]
"""

import asyncio
import contextlib
import functools
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from services.delivery.errors import LeaseLostError, LedgerFullError
from services.delivery.ledger.protocol import (
    DeliveryKey,
    Flush,
    GroupCursor,
    Listing,
    Page,
    Takeover,
    TrimReport,
    WaitingCount,
)
from services.delivery.ledger.rows import (
    DoneRow,
    EndedRow,
    JobRow,
    LaneRow,
    NoticeRow,
    OpenRow,
    Positions,
    RangeRow,
    RoutingNote,
    SetAsideRow,
    WaitingRow,
)
from services.delivery.ledger.sqlite import cursor_groups, lane_tables, queries, ranges, repair, retention
from services.delivery.ledger.sqlite.day_tables import day_of, migrate_days
from services.delivery.ledger.sqlite.flush_writer import CLOCK_JUMPED, LOG_ID, ROUTING_NOTE, WRITTEN, FlushWriter, set_meta
from services.delivery.ledger.sqlite.former_ledgers import FormerLedgers
from services.delivery.ledger.sqlite.id_collisions import DeliveryId
from services.delivery.model import State, delivery_id
from services.eventlog.record import Record, ShardPosition
from services.runtime import failpoints
from services.runtime.consumer_scope import Scope
from services.runtime.database import WalCheckpoints, connect, give_back_some, is_disk_full, migrate, sole_owner, used_bytes
from services.runtime.database_layout import refuse_other_layout
from services.runtime.listing_reader import Budget, ListingReader

MIGRATIONS = Path(__file__).parents[2] / "migrations"
# How many steps, of one transaction each, look through the copies in one call. The next call continues where this one ends.
_COPY_STEPS = 50
_FIRST_COPY = (-1, 0)
_Result = TypeVar("_Result")


class SqliteLedger:
    """The `Ledger` in one SQLite file; made by `open_ledger`."""

    def __init__(self, path: Path, delivery_id: DeliveryId = delivery_id) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connect(path)
        self._checkpoints = WalCheckpoints(path, self._connection)
        self._checkpoints.start()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-writer")
        self._reading = connect(path, read_only=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        # Listings have a thread and a connection of their own, so that deliveries do not wait for them.
        self._listings = ListingReader(path)
        self._former = FormerLedgers(path)
        self._flush_writer = FlushWriter(delivery_id)
        self._owner = ""
        self._epoch = -1  # no lease
        self._copies_after = _FIRST_COPY

    async def close(self) -> None:
        """Finish the calls under way, then close."""
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._reader.shutdown)
        await self._listings.close()
        await self._former.close()
        # Close the read-only connection first: the last connection to close checkpoints the write-ahead log, which needs write access.
        self._reading.close()
        self._checkpoints.close()
        self._connection.close()

    async def take_lease(self, owner: str) -> Takeover:
        """See `Ledger.take_lease`."""
        return await self._write(self._take_lease, owner)

    async def flush(self, flush: Flush) -> Mapping[DeliveryKey, bytes]:
        """See `Ledger.flush`. Raises `FileGoneError` if the file no longer exists, and `sqlite3.Error` if the disk fails."""
        return await self._write(self._flush_writer.flush, flush)

    async def set_log_id(self, log_id: str) -> None:
        """See `Ledger.set_log_id`."""
        await self._write(set_meta, LOG_ID, log_id)

    async def set_clock_jump(self, jumped_ms: int) -> None:
        """See `Ledger.set_clock_jump`."""
        await self._write(set_meta, CLOCK_JUMPED, str(jumped_ms))

    async def note_routing(self, note: RoutingNote) -> None:
        """See `Ledger.note_routing`."""
        await self._write(set_meta, ROUTING_NOTE, json.dumps(note))

    async def lanes(self) -> list[str]:
        """See `Ledger.lanes`."""
        return await self._read(queries.lanes)

    async def due_rows(self, subscription_id: str, due_by_ms: int | None, limit: int) -> list[OpenRow]:
        """See `Ledger.due_rows`."""
        return await self._read(queries.due_rows, subscription_id, due_by_ms, limit)

    async def next_due_ms(self, subscription_id: str, after_ms: int) -> int | None:
        """See `Ledger.next_due_ms`."""
        return await self._read(queries.next_due_ms, subscription_id, after_ms)

    async def expired_rows(self, accepted_before_ms: int, limit: int) -> list[OpenRow]:
        """See `Ledger.expired_rows`."""
        return await self._read(queries.expired_rows, accepted_before_ms, limit)

    async def waiting_counts(self) -> list[WaitingCount]:
        """See `Ledger.waiting_counts`."""
        return await self._read(lane_tables.waiting_counts)

    async def ordered_rows(self, subscription_id: str) -> list[WaitingRow]:
        """See `Ledger.ordered_rows`."""
        return await self._read(lane_tables.ordered_rows, subscription_id)

    async def open_rows(self, ids: Sequence[bytes]) -> list[OpenRow]:
        """See `Ledger.open_rows`."""
        return await self._read(lane_tables.open_rows, ids)

    async def ranges(self) -> list[RangeRow]:
        """See `Ledger.ranges`."""
        return await self._read(ranges.ranges)

    async def lowest_owed(self) -> Positions | None:
        """See `Ledger.lowest_owed`."""
        return await self._read(ranges.lowest_owed)

    async def jobs(self) -> list[JobRow]:
        """See `Ledger.jobs`."""
        return await self._read(ranges.jobs)

    async def ended(self, subscription_id: str) -> list[EndedRow]:
        """See `Ledger.ended`."""
        return await self._read(ranges.ended_of, subscription_id)

    async def set_aside(self, limit: int) -> list[SetAsideRow]:
        """See `Ledger.set_aside`."""
        return await self._read(ranges.set_aside, limit)

    async def lane_rows(self) -> list[LaneRow]:
        """See `Ledger.lane_rows`."""
        return await self._read(lane_tables.lane_rows)

    async def outbox_page(self, limit: int) -> list[NoticeRow]:
        """See `Ledger.outbox_page`."""
        return await self._read(lane_tables.outbox_page, limit)

    async def outbox_counts(self) -> dict[str, int]:
        """See `Ledger.outbox_counts`."""
        return await self._read(lane_tables.outbox_counts)

    async def forget_notices(self, ids: Sequence[str]) -> None:
        """See `Ledger.forget_notices`."""
        await self._write(lane_tables.forget_notices, ids)

    async def recorded_place(self) -> list[ShardPosition]:
        """See `Ledger.recorded_place`."""
        return await self._read(queries.recorded_place)

    async def first_uncopied(self, copied_through: Sequence[ShardPosition]) -> list[ShardPosition]:
        """See `Ledger.first_uncopied`."""
        return await self._read(queries.first_uncopied, copied_through)

    async def uncopied(self, shard: int, after: int, through: int, limit: int) -> list[ShardPosition]:
        """See `Ledger.uncopied`."""
        return await self._read(queries.uncopied, shard, after, through, limit)

    async def keep_copies(self, records: Sequence[Record]) -> None:
        """See `Ledger.keep_copies`."""
        await self._write(retention.keep_copies, records)

    async def copies(self, positions: Sequence[ShardPosition]) -> list[Record]:
        """See `Ledger.copies`."""
        return await self._read(queries.copies, positions)

    async def trim(self, *, before_ms: int | None, bytes_max: int) -> TrimReport:
        """See `Ledger.trim`."""
        deliveries = copies = given_back = 0
        if before_ms is not None:
            before_day = day_of(before_ms)
            while (dropped := await self._write_step(retention.drop_days, before_day)) is not None:
                deliveries += dropped
            while await self._write(ranges.drop_ended, before_ms) is not None:
                pass
            deliveries += await self._former.trim(before_day)
        while (dropped := await self._write_step(retention.shrink, bytes_max)) is not None:
            deliveries += dropped
        for _ in range(_COPY_STEPS):
            some, after = await self._write(retention.drop_copies, self._copies_after)
            copies += some
            self._copies_after = after or _FIRST_COPY
            if after is None:
                break
        while some := await self._write(give_back_some):
            given_back += some
        if given_back:
            self._checkpoints.shorten()
        return TrimReport(deliveries, copies, await self._read(used_bytes))

    async def count_lost(self, held_through: Mapping[int, int]) -> int:
        """See `Ledger.count_lost`."""
        return await self._read(repair.count_lost, held_through)

    async def repair(self, log_id: str, groups: Sequence[GroupCursor], held_through: Mapping[int, int]) -> None:
        """See `Ledger.repair`."""
        await self._write(repair.repair, log_id, groups, held_through)

    async def find(self, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
        """See `Ledger.find`."""
        found = await self._listings.read(scope.text, queries.find, scope, delivery_id)
        return await self._former.find(scope, delivery_id) if found is None else found

    async def page(self, listing: Listing) -> Page:
        """See `Ledger.page`."""
        page = await self._listings.read(listing.scope.text, _page_within_budget, listing)
        return await self._former.with_page(page, listing)

    async def ended_at(self, scope: Scope, shard: int, position: int, limit: int) -> list[EndedRow]:
        """See `Ledger.ended_at`."""
        return await self._listings.read(scope.text, ranges.ended_at, scope, shard, position, limit)

    async def ended_totals(self, scope: Scope, subscription_id: str) -> dict[State, int]:
        """See `Ledger.ended_totals`."""
        return await self._listings.read(scope.text, ranges.ended_totals, scope, subscription_id)

    async def _read(self, query: Callable[..., _Result], *arguments: object) -> _Result:
        return await self._loop.run_in_executor(self._reader, functools.partial(query, self._reading, *arguments))

    async def _write(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Run a function in the writer's thread, in one transaction. Raises as `flush` does."""
        return await self._loop.run_in_executor(self._writer, functools.partial(self._transact, function, *arguments))

    async def _write_step(self, step: Callable[..., _Result], *arguments: object) -> _Result:
        """Run a step that may drop a day's table."""
        return await self._loop.run_in_executor(self._writer, functools.partial(self._transact, self._drop, step, *arguments))

    def _drop(self, connection: sqlite3.Connection, step: Callable[..., _Result], *arguments: object) -> _Result:
        # Deliveries that finished on the day of a dropped table may come later: because the disk was full, or the clock went back.
        self._flush_writer.forget_days()
        return step(connection, *arguments)

    def _transact(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            if function != self._take_lease:
                self._check_lease(connection)
            result = function(connection, *arguments)
            failpoints.reached("ledger.before_commit")
            connection.execute("COMMIT")
            failpoints.reached("ledger.after_commit")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # The rollback has also removed the days' tables that this transaction created.
            self._flush_writer.forget_days()
            if isinstance(error, sqlite3.OperationalError) and is_disk_full(error):
                raise LedgerFullError("the disk is full") from error
            raise
        self._checkpoints.after_commit()
        return result

    def _take_lease(self, connection: sqlite3.Connection, owner: str) -> Takeover:
        (epoch,) = connection.execute("UPDATE lease SET owner = ?, epoch = epoch + 1 RETURNING epoch", (owner,)).fetchone()
        self._owner, self._epoch = owner, epoch
        cursors = cursor_groups.group_cursors(connection)
        slots = tuple(cursor_groups.slots_of(connection, each.group_id) for each in cursors)
        state = dict(connection.execute("SELECT name, value FROM meta"))
        note = RoutingNote(*json.loads(state[ROUTING_NOTE])) if ROUTING_NOTE in state else None
        return Takeover(cursors, state.get(LOG_ID, ""), int(state.get(CLOCK_JUMPED, 0)), int(state.get(WRITTEN, 0)), note, slots)

    def _check_lease(self, connection: sqlite3.Connection) -> None:
        if connection.execute("SELECT 1 FROM lease WHERE owner = ? AND epoch = ?", (self._owner, self._epoch)).fetchone() is None:
            raise LeaseLostError("another process has taken over the ledger; run only one delivery service for each ledger")


def _page_within_budget(connection: sqlite3.Connection, listing: Listing) -> Page:
    return queries.page(connection, listing, Budget())


@contextlib.asynccontextmanager
async def open_ledger(path: Path, delivery_id: DeliveryId = delivery_id) -> AsyncIterator[SqliteLedger]:
    """Open the ledger in a file; create the file or migrate its schema if needed. `delivery_id` returns the ids of a delivery's key.

    Raises `StartError` if the file cannot be used, or another process has it open.
    """
    await asyncio.to_thread(refuse_other_layout, path)
    with sole_owner(path):
        await asyncio.to_thread(migrate, path, MIGRATIONS)
        await asyncio.to_thread(migrate_days, path)
        failpoints.reached("ledger.opened")
        ledger = SqliteLedger(path, delivery_id)
        try:
            yield ledger
        finally:
            await ledger.close()
