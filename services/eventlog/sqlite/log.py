"""Log: the SQLite engine, an embedded event log in one file.

ingest → [log] → writer, queries, tail → SQLite

`writer.py` writes, `queries.py` holds the queries. This file bounds the appends that wait for the writer, wakes followers, and keeps
blocking calls off the event loop.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from services.eventlog.errors import AnotherLogError, EventLogError, LogClosedError, LogFullError, LogUnavailableError, StorageFullError
from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.history import EventPage, EventQuery
from services.eventlog.protocol import BATCH_BYTES_MAX
from services.eventlog.record import Appended, Conflict, Lag, NewEvent, Record, ResumePoint, ShardPosition, SlotProgress
from services.eventlog.sqlite import filtered_read, queries
from services.eventlog.sqlite.tail import Tail
from services.eventlog.sqlite.writer import Append, GroupOutcome, SqliteWriter, WriterTask
from services.runtime import failpoints
from services.runtime.clock import Clock, unix_ms
from services.runtime.consumer_scope import Scope
from services.runtime.database import connect, give_back_some, migrate, sole_owner, used_bytes
from services.runtime.database_layout import refuse_other_layout
from services.runtime.ids import SLOTS, id_bytes
from services.runtime.listing_reader import Budget, ListingReader

MIGRATIONS = Path(__file__).parents[1] / "migrations"
_PENDING_EVENTS_MAX = 20_000
_PENDING_BYTES_MAX = 64 * 1024 * 1024

_Result = TypeVar("_Result")
_Arguments = ParamSpec("_Arguments")


class SqliteEventLog:
    """An event log in one SQLite file; made by `open_sqlite_log`."""

    def __init__(self, path: Path, clock: Clock, *, bytes_max: int, retention_s: float, failed: Callable[[BaseException], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self.why_refusing: str | None = None
        """Why the latest append was refused for lack of room; None if it was not refused, or if there is room again."""
        self.retention_s = retention_s
        """How long records are kept, in seconds, from their acceptance."""
        self._routed: dict[int, ShardPosition] = {}
        """The last routed event of each slot that has reported one."""
        self._writer = SqliteWriter(
            path,
            clock,
            bytes_max=bytes_max,
            finished=lambda outcome: self._from_writer(self._finish_group, outcome),
            failed=lambda error: self._from_writer(failed, error),
        )
        self._reading = connect(path, read_only=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="log-reader")
        self._listings = ListingReader(path)
        # Reads of lanes that are behind delay neither followers nor listings.
        self._filtered = ListingReader(path)
        self._waiting: dict[Append, asyncio.Future[list[Appended | Conflict]]] = {}
        self.pending_events = 0
        """How many events await their commit."""
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._tail = Tail(self._writer.head)
        self._entry = asyncio.Lock()
        self._following = True
        self._closed = False
        (self.log_id,) = self._reading.execute("SELECT value FROM meta WHERE name = 'log_id'").fetchone()
        self._writer.start()

    def change_limits(self, *, bytes_max: int, retention_s: float) -> None:
        """Use another size limit and another retention from now on."""
        self._writer.bytes_max = bytes_max
        if retention_s != self.retention_s:
            self.retention_s = retention_s
            # Each follower learns the new retention when it follows again.
            self._tail.wake()

    async def close(self) -> None:
        """Commit the appends under way, and close the log."""
        self.end_following()
        self._closed = True
        await self._listings.close()
        await self._filtered.close()
        await asyncio.to_thread(self._reader.shutdown)
        # Close this one before the writer's: the last connection to close checkpoints the write-ahead log; a read-only connection cannot.
        self._reading.close()
        await asyncio.to_thread(self._writer.close)

    def end_following(self) -> None:
        """End every following with `LogUnavailableError`, since this log is about to close."""
        self._following = False
        self._tail.wake()

    # Appending

    async def append(self, events: Sequence[NewEvent]) -> list[Appended | Conflict]:
        """Append events in one transaction; see `EventAppender.append`."""
        if not events:
            return []
        async with self._entry:  # appends that wait for room keep the order of their calls
            while self.pending_events >= _PENDING_EVENTS_MAX or self._pending_bytes >= _PENDING_BYTES_MAX:
                self._room.clear()
                await self._room.wait()
            future = self._put(events)
        return await future

    def _put(self, events: Sequence[NewEvent]) -> asyncio.Future[list[Appended | Conflict]]:
        if self._closed:
            raise LogClosedError("the log is closed")
        append = Append(events)
        self.pending_events += len(events)
        self._pending_bytes += append.size_bytes
        future: asyncio.Future[list[Appended | Conflict]] = self._loop.create_future()
        self._waiting[append] = future
        self._writer.put(append)
        return future

    def _finish_group(self, outcome: GroupOutcome) -> None:
        for append in outcome.appends:
            self.pending_events -= len(append.events)
            self._pending_bytes -= append.size_bytes
            future = self._waiting.pop(append)
            if future.done():  # its caller has gone
                continue
            if outcome.error is not None:
                future.set_exception(outcome.error)
            else:
                future.set_result(append.results or [])
        self._room.set()
        if outcome.error is None:
            self.why_refusing = None
        elif isinstance(outcome.error, (StorageFullError, LogFullError)):
            self.why_refusing = str(outcome.error)
        if outcome.records:
            self._tail.extend(outcome.records)

    def _from_writer(self, function: Callable[[_Result], None], argument: _Result) -> None:
        # The loop may have ended before the writer; then there is no caller left to answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, argument)

    async def _run_in_writer(self, run: Callable[[sqlite3.Connection], int]) -> int:
        if self._closed:
            raise LogClosedError("the log is closed")
        future: asyncio.Future[int] = self._loop.create_future()

        def done(result: int | EventLogError) -> None:
            if future.done():  # its caller has gone
                return
            if isinstance(result, EventLogError):
                future.set_exception(result)
            else:
                future.set_result(result)

        self._writer.put(WriterTask(run, lambda result: self._from_writer(done, result)))
        return await future

    # Reading

    @contextlib.asynccontextmanager
    async def follow(
        self, after: Sequence[ShardPosition], *, slots: Sequence[int] = (), log_id: str = "", batch_records_max: int = 500
    ) -> AsyncIterator["SqliteFollowing"]:
        """Follow the log; see `EventReader.follow`."""
        if log_id not in {"", self.log_id}:
            raise AnotherLogError("the log is not the log that the reader has followed")
        [place] = after
        head, start = await self.run_query(queries.check_place, place, slots, begins_anew=not log_id)
        yield SqliteFollowing(self, self._tail, head, start, batch_records_max)

    async def read(self, query: ReadQuery) -> ReadPage:
        """Return the next page of a filtered range; see `EventReader.read`."""
        if self._closed:
            raise LogClosedError("the log is closed")
        return await self._filtered.read("", _filtered_page, query, self.log_id)

    async def fetch(self, places: Sequence[ShardPosition]) -> list[Record]:
        """Read records at given places; see `EventReader.fetch`."""
        records, _ = await self.run_query(queries.records_at, places)
        return records

    async def fetch_bounded(self, places: Sequence[ShardPosition]) -> tuple[list[Record], bool]:
        """Read records at given places, bounded in bytes; see `EventLog.fetch_bounded`."""
        return await self.run_query(queries.records_at, places, bytes_max=BATCH_BYTES_MAX)

    async def rewind(self, rewound: Sequence[SlotProgress]) -> None:
        """Undo releases; see `ReaderProgress.rewind`."""
        await self._run_in_writer(lambda connection: queries.rewind(connection, rewound))

    async def resume_points(self, after: Sequence[ShardPosition], slots: Sequence[int] = ()) -> tuple[str, list[ResumePoint]]:
        """Find where a reader resumes; see `EventReader.resume_points`."""
        if self._closed:
            raise LogClosedError("the log is closed")
        [last] = after
        return self.log_id, [await self._listings.read("", queries.resume_point, last.event_id, slots)]

    async def release(self, progress: Sequence[SlotProgress]) -> list[ShardPosition]:
        """Store what readers have recorded and released; see `ReaderProgress.release`."""
        await self._run_in_writer(lambda connection: queries.store_released(connection, progress))
        expired = await self.run_query(queries.first_position_at, unix_ms(self._clock) - int(self.retention_s * 1000))
        return [ShardPosition(queries.SHARD, expired - 1)]

    async def report_routed(self, routed: Sequence[ShardPosition], slots: Sequence[int] = ()) -> Lag:
        """Remember the events that were routed last; see `ReaderProgress.report_routed`."""
        self._routed |= dict.fromkeys(slots or range(SLOTS), routed[0])
        return await self.lag()

    async def lag(self) -> Lag:
        """Return how many events are not routed, by the latest reports; while a slot has not reported, how many are not released."""
        return await self.run_query(queries.lag_behind, set(self._routed.values()), is_complete=len(self._routed) == SLOTS)

    async def check_room(self) -> None:
        """Check whether there is room again; see `EventLogMaintenance.check_room`."""

        def used_after_a_write(connection: sqlite3.Connection) -> int:
            connection.execute("UPDATE meta SET value = value WHERE name = 'trimmed_to'")
            return used_bytes(connection)

        if self.why_refusing is not None and await self._run_in_writer(used_after_a_write) < self._writer.bytes_max:
            self.why_refusing = None

    async def trim(self, *, before_ms: int) -> int:
        """Delete older records that are released, a bounded number in each transaction; see `EventLogMaintenance.trim`."""
        dropped = 0
        while step := await self._run_in_writer(lambda connection: queries.trim_some(connection, before_ms)):
            dropped += step
        given_back = 0
        while dropped and (step := await self._run_in_writer(give_back_some)):
            given_back += step
        if given_back:
            self._writer.shorten_files()
        return dropped

    async def locate(self, scope: Scope, event_id: str) -> Record | None:
        """Return the record of an event id; see `EventHistory.locate`."""
        if self._closed:
            raise LogClosedError("the log is closed")
        record = await self._listings.read(scope.text, queries.record_by_id, id_bytes(event_id))
        return record if record is not None and (not record.audience or scope.includes(record.audience)) else None

    async def newest(self, query: EventQuery) -> EventPage:
        """Return a page of the history; see `EventHistory.newest`."""
        if self._closed:
            raise LogClosedError("the log is closed")
        return await self._listings.read(query.scope.text, _page_of_newest, query)

    async def used_bytes(self) -> int:
        """Return how many bytes the log takes on disk."""
        return await self.run_query(used_bytes)

    async def run_query(
        self,
        query: Callable[Concatenate[sqlite3.Connection, _Arguments], _Result],
        *arguments: _Arguments.args,
        **options: _Arguments.kwargs,
    ) -> _Result:
        """Run a query in the reader's thread."""
        if self._closed:
            raise LogClosedError("the log is closed")
        return await self._loop.run_in_executor(self._reader, lambda: query(self._reading, *arguments, **options))

    @property
    def is_followed(self) -> bool:
        """Whether readers may follow the log; False once it is about to close."""
        return self._following


def _page_of_newest(connection: sqlite3.Connection, query: EventQuery) -> EventPage:
    return queries.newest_records(connection, query, Budget())


def _filtered_page(connection: sqlite3.Connection, query: ReadQuery, log_id: str) -> ReadPage:
    return filtered_read.read_page(connection, query, log_id, Budget())


class SqliteFollowing:
    """One follower of the embedded log."""

    def __init__(self, log: SqliteEventLog, tail: Tail, head: int, start: int, batch_records_max: int) -> None:
        self._log = log
        self._tail = tail
        self._scanned = start
        self._batch_records_max = batch_records_max
        self.heads = {queries.SHARD: head}
        self.log_id = log.log_id
        self.retention_s = log.retention_s

    async def batches(self) -> AsyncIterator[Sequence[Record]]:
        """Yield records as they come; see `Following.batches`."""
        while True:
            if not self._log.is_followed:
                raise LogUnavailableError("the log is closing")
            if self._log.retention_s != self.retention_s:
                raise LogUnavailableError("the log's retention has changed; follow the log again")
            if self._scanned >= self._tail.end:
                await self._tail.wait_for_growth()
                continue
            tail_start = self._tail.start
            if self._scanned >= tail_start:
                records = self._tail.after(self._scanned, self._batch_records_max, BATCH_BYTES_MAX)
            else:
                records = await self._log.run_query(queries.records_after, self._scanned, self._batch_records_max)
            if not records:  # all records before the start of the tail have been trimmed
                self._scanned = tail_start
                continue
            self._scanned = records[-1].position
            yield records


@contextlib.asynccontextmanager
async def open_sqlite_log(
    path: Path, clock: Clock, *, bytes_max: int, retention_s: float, failed: Callable[[BaseException], None]
) -> AsyncIterator[SqliteEventLog]:
    """Open the log in a file; create the file, or bring its schema up to date.

    `bytes_max` is the size at which appends are refused. `failed` is called once, with the error after which the log can guarantee
    nothing any more. Raises `StartError` if the file cannot be used.
    """
    await asyncio.to_thread(refuse_other_layout, path)
    with sole_owner(path):
        await asyncio.to_thread(migrate, path, MIGRATIONS)
        failpoints.reached("log.opened")
        log = SqliteEventLog(path, clock, bytes_max=bytes_max, retention_s=retention_s, failed=failed)
        try:
            yield log
        finally:
            await log.close()
