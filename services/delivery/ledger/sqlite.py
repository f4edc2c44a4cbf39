"""SQLite ledger: the durable state of every delivery. One process opens it, one thread writes; each transaction first checks the lease.

router → lane → sender → retry_policy → recorder → [sqlite]

Law 1: one transaction writes an event's deliveries and the cursor that passes the event.
Law 2: a worker that has lost its lease writes nothing.
Law 3: a terminal state never changes: finished rows are only inserted.
"""

import asyncio
import contextlib
import datetime as dt
import functools
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from services.delivery.errors import LeaseLostError, LedgerFullError
from services.delivery.ledger.rows import DONE_COLUMNS, OPEN_COLUMNS, DoneRow, OpenRow
from services.eventlog.record import PARTITIONS
from services.runtime import failpoints
from services.runtime.database import WalCheckpoints, connect, is_disk_full, migrate, sole_owner
from services.runtime.listing_reader import ListingReader

MIGRATIONS = Path(__file__).parents[1] / "migrations"
# Only a few sizes, so that each statement is prepared once: preparing a long statement takes as long as running it.
_ROWS_PER_STATEMENT = (128, 32, 8, 2, 1)
_STATEMENTS_MAX = 32
WRITTEN = "written_ms"
"""The name in `meta` of the latest `written_ms` of a flush with unfinished deliveries."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a partition's events are in the ledger: all events before `position`, and the event there through a subscription."""

    partition: int
    position: int
    event_id: str
    through: str
    """The last subscription of the event at `position` that is recorded; empty: all of its subscriptions."""


@dataclass(slots=True)
class Flush:
    """What one transaction writes."""

    opened: list[OpenRow] = field(default_factory=list)
    """Unfinished deliveries that have no row yet."""
    updated: list[OpenRow] = field(default_factory=list)
    """Unfinished deliveries whose row changes."""
    closed: list[bytes] = field(default_factory=list)
    """Ids of finished deliveries whose open row must be deleted."""
    finished: list[DoneRow] = field(default_factory=list)
    """Finished deliveries."""
    cursors: dict[int, Cursor] = field(default_factory=dict)
    """By partition."""
    written_ms: int = 0
    """When the flush is written, on the clock by which rows are due (`due_clock`)."""

    def __bool__(self) -> bool:
        return bool(self.opened or self.updated or self.finished or self.cursors)


class Ledger:
    """The ledger in one SQLite file; made by `open_ledger`."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connect(path)
        self._checkpoints = WalCheckpoints(path, self._connection)
        self._checkpoints.start()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger-writer")
        self._reading = connect(path, read_only=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="ledger-reader")
        self.listings = ListingReader(path)
        """Answers users' queries on a thread and a connection of its own, so that deliveries do not wait for the queries."""
        self.clock_jumped_ms = 0
        """How far the wall clock is known to have jumped since the ledger was created (forward: positive); due times leave jumps out."""
        self._owner = ""
        self._epoch = 0
        self._days: set[str] = set()

    async def close(self) -> None:
        """Finish the calls under way, then close."""
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._reader.shutdown)
        await self.listings.close()
        # Close the read-only connection first: the last connection to close checkpoints the write-ahead log, which needs write access.
        self._reading.close()
        self._checkpoints.close()
        self._connection.close()

    async def lease(self, owner: str) -> list[Cursor]:
        """Take over all partitions under a new epoch, and return each partition's cursor."""
        return await self._in_writer(self._lease, owner)

    async def commit(self, flush: Flush) -> None:
        """Write a flush durably.

        Raises `LeaseLostError` if another worker has taken over, `FileGoneError` if the file no longer exists, `LedgerFullError`
        if the disk is full (nothing was written; try again), and `sqlite3.Error` if the disk fails.
        """
        await self._in_writer(self._commit, flush)

    async def read(self, query: Callable[..., _Result], *arguments: object) -> _Result:
        """Run a read-only query, such as those of `sqlite_queries`, in the reader's thread."""
        return await self._loop.run_in_executor(self._reader, functools.partial(query, self._reading, *arguments))

    async def write(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Run a function in the writer's thread, in one transaction; it may drop days' tables. Raises as `commit` does."""
        return await self._in_writer(self._other, function, *arguments)

    def shorten_files(self) -> None:
        """Shrink the files soon to the size of their content."""
        self._checkpoints.shorten()

    async def _in_writer(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        return await self._loop.run_in_executor(self._writer, functools.partial(self._transact, function, *arguments))

    def _other(self, connection: sqlite3.Connection, function: Callable[..., _Result], *arguments: object) -> _Result:
        # The function may drop a day's table, and deliveries that finished on that day may come later: because the disk was full, or
        # the clock went back. So forget which tables exist.
        self._days.clear()
        return function(connection, *arguments)

    def _transact(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            if function != self._lease:
                self._check_lease(connection)
            result = function(connection, *arguments)
            failpoints.reached("ledger.before_commit")
            connection.execute("COMMIT")
            failpoints.reached("ledger.after_commit")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # The rollback has also removed the days' tables that this transaction created.
            self._days.clear()
            if isinstance(error, sqlite3.OperationalError) and is_disk_full(error):
                raise LedgerFullError("the disk is full") from error
            raise
        self._checkpoints.after_commit()
        return result

    def _lease(self, connection: sqlite3.Connection, owner: str) -> list[Cursor]:
        (newest,) = connection.execute("SELECT coalesce(max(epoch), 0) FROM cursors").fetchone()
        self._owner, self._epoch = owner, newest + 1
        connection.executemany(
            "INSERT INTO cursors VALUES (?, 0, '', '', ?, ?, 0) ON CONFLICT DO UPDATE SET owner = excluded.owner, epoch = excluded.epoch",
            [(partition, owner, self._epoch) for partition in range(PARTITIONS)],
        )
        rows = connection.execute("SELECT partition, position, event_id, subscription_id FROM cursors ORDER BY partition")
        return [Cursor(*row) for row in rows]

    def _check_lease(self, connection: sqlite3.Connection) -> None:
        held = connection.execute("SELECT count(*) FROM cursors WHERE owner = ? AND epoch = ?", (self._owner, self._epoch)).fetchone()[0]
        if held != PARTITIONS:
            raise LeaseLostError("another process has taken over the ledger; run one delivery service on it")

    def _commit(self, connection: sqlite3.Connection, flush: Flush) -> None:
        _insert(connection, f"INSERT OR IGNORE INTO open ({', '.join(OPEN_COLUMNS)})", len(OPEN_COLUMNS), flush.opened)
        if flush.updated:
            connection.executemany(
                "UPDATE open SET attempt_count = ?, attempts = ?, last_status = ?, due_ms = ? WHERE id = ?",
                [(row.attempt_count, row.attempts, row.last_status, row.due_ms, row.id) for row in flush.updated],
            )
        if flush.opened or flush.updated:
            set_meta(connection, WRITTEN, str(flush.written_ms))
        if flush.closed:
            connection.executemany("DELETE FROM open WHERE id = ?", [(each,) for each in flush.closed])
        for day, rows in _by_day(flush.finished).items():
            if day not in self._days:
                _create_day(connection, day)
                self._days.add(day)
            _insert(connection, f"INSERT OR IGNORE INTO done_{day} ({', '.join(DONE_COLUMNS)})", len(DONE_COLUMNS), rows)
        if flush.cursors:
            connection.executemany(
                "UPDATE cursors SET position = ?, event_id = ?, subscription_id = ? WHERE partition = ?",
                [(cursor.position, cursor.event_id, cursor.through, cursor.partition) for cursor in flush.cursors.values()],
            )


def _insert(connection: sqlite3.Connection, head: str, columns: int, rows: Sequence[tuple[object, ...]]) -> None:
    start = 0
    while start < len(rows):
        count = next(size for size in _ROWS_PER_STATEMENT if size <= len(rows) - start)
        part = rows[start : start + count]
        connection.execute(_inserting(head, columns, count), [value for row in part for value in row])
        start += count


@functools.lru_cache(_STATEMENTS_MAX)
def _inserting(head: str, columns: int, rows: int) -> str:
    row_text = "(" + ",".join("?" * columns) + ")"
    return f"{head} VALUES {','.join([row_text] * rows)}"


def _by_day(rows: Iterable[DoneRow]) -> dict[str, list[DoneRow]]:
    days: dict[str, list[DoneRow]] = {}
    for row in rows:
        days.setdefault(day_of(row.finished_ms), []).append(row)
    return days


@functools.lru_cache(maxsize=64)
def _day_name(day: int) -> str:
    return dt.datetime.fromtimestamp(day * 86400, tz=dt.UTC).strftime("%Y%m%d")


def day_of(time_ms: int) -> str:
    """Return the day (UTC) of a time in ms since 1970, as YYYYMMDD."""
    return _day_name(time_ms // 86_400_000)


def _create_day(connection: sqlite3.Connection, day: str) -> None:
    connection.execute(
        f"""
        CREATE TABLE IF NOT EXISTS done_{day} (
            id BLOB PRIMARY KEY,
            event_id TEXT NOT NULL,
            partition INTEGER NOT NULL,
            position INTEGER NOT NULL,
            subscription_id TEXT NOT NULL,
            consumer_id TEXT NOT NULL,
            event_type TEXT NOT NULL,
            accepted_ms INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            state INTEGER NOT NULL,
            attempt_count INTEGER NOT NULL,
            attempts BLOB NOT NULL,
            last_status INTEGER NOT NULL,
            finished_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    connection.execute(f"CREATE INDEX IF NOT EXISTS done_{day}_by_consumer ON done_{day} (consumer_id, id)")


def set_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Set a value of the ledger's own state."""
    connection.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))


@contextlib.asynccontextmanager
async def open_ledger(path: Path) -> AsyncIterator[Ledger]:
    """Open the ledger in a file; create the file or migrate its schema if needed.

    Raises `StartError` if the file cannot be used, or another process has it open.
    """
    with sole_owner(path):
        await asyncio.to_thread(migrate, path, MIGRATIONS)
        failpoints.reached("ledger.opened")
        ledger = Ledger(path)
        try:
            yield ledger
        finally:
            await ledger.close()
