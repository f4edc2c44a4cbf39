"""Writer: one thread that groups concurrent appends into few SQLite transactions.

log → [writer: queue → one transaction, one fsync] → acknowledge

Law 1: a group is acknowledged after its commit, never before.
Law 2: if the disk is full or the file is locked, the group is refused and later groups may succeed. Any other write error is final,
since after a failed fsync the state on disk is unknown. The log then stops, and the process with it.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from services.eventlog.errors import EventLogError, LogClosedError, LogFullError, LogUnavailableError, StorageFullError
from services.eventlog.record import Appended, Conflict, NewEvent, Record
from services.eventlog.sqlite.event_ids import EventIds
from services.eventlog.sqlite.queries import SHARD
from services.runtime import failpoints
from services.runtime.clock import Clock, unix_ms
from services.runtime.database import WalCheckpoints, connect, is_disk_full, used_bytes

GROUP_EVENTS_MAX = 2000
# On a slow disk, the next append waits for a whole group. Beyond this size, a larger group saves no time per event.
GROUP_BYTES_MAX = 4 * 1024 * 1024
# Rows of one INSERT statement: long statements leave the interpreter lock to the event loop.
_ROWS_PER_STATEMENT = 200
_COLUMNS = 10
_INSERT = (
    "INSERT INTO events (position, partition, event_id, accepted_ms, source, id, type, audience, digest, event) VALUES {rows} "
    "ON CONFLICT (source, id) DO NOTHING"
)
_ROW = "(" + ",".join("?" * _COLUMNS) + ")"
_FULL_BATCH = _INSERT.format(rows=",".join([_ROW] * _ROWS_PER_STATEMENT))
_SAME_ID = "SELECT event_id, partition, position, digest FROM events WHERE source = ? AND id = ?"

Results = list[Appended | Conflict]
_Result = TypeVar("_Result")


@dataclass(slots=True, eq=False)
class Append:
    """The events of one call, and their results."""

    events: Sequence[NewEvent]
    results: Results | None = None
    size_bytes: int = field(init=False)
    """The size of all events together."""

    def __post_init__(self) -> None:
        self.size_bytes = sum([len(event.event) for event in self.events])


@dataclass(frozen=True, slots=True)
class WriterTask:
    """Other work on the writing connection, in its own transaction; `done` receives the result, or the error."""

    run: Callable[[sqlite3.Connection], int]
    done: Callable[[int | EventLogError], None]


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """A group of appends with its outcome: durable, with its new records, or refused, with an error."""

    appends: list[Append]
    records: list[Record]
    error: EventLogError | None


class SqliteWriter:
    """Owns the only connection that writes."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        bytes_max: int,
        finished: Callable[[GroupOutcome], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Open the log; `finished` and `failed` are called from the writer's thread."""
        self._clock = clock
        self.bytes_max = bytes_max
        """The size at which appends are refused; it may change at any time, on any thread."""
        self._finished = finished
        self._failed = failed
        self._queue: queue.SimpleQueue[Append | WriterTask | None] = queue.SimpleQueue()  # bounded: see `put`
        self._connection = connect(path)
        self._checkpoints = WalCheckpoints(path, self._connection)
        newest = self._connection.execute("SELECT position, event_id, accepted_ms FROM events ORDER BY position DESC LIMIT 1").fetchone()
        (trimmed_to,) = self._connection.execute("SELECT value FROM meta WHERE name = 'trimmed_to'").fetchone()
        self.head = max(newest[0] if newest else 0, int(trimmed_to))
        self._ids = EventIds(newest[1] if newest else None)
        # Times of acceptance never go back, so that a binary search works on them.
        self._now_ms = newest[2] if newest else 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._checkpoints.start()
        self._thread.start()

    def put(self, work: Append | WriterTask) -> None:
        """Queue work; the caller bounds how much is queued."""
        self._queue.put(work)

    def shorten_files(self) -> None:
        """Ask for the files to be shortened to their content soon."""
        self._checkpoints.shorten()

    def close(self) -> None:
        """Commit the queued work, then end the thread and close the connection."""
        self._queue.put(None)
        self._thread.join()
        self._checkpoints.close()
        self._connection.close()

    def _run(self) -> None:
        broken, more = False, True
        while more:
            appends, tasks, more = self._next()
            if broken:
                self._refuse(appends, tasks)
                continue
            try:
                self._write(appends, tasks)
            except Exception as error:  # noqa: BLE001 - after any such error the log can guarantee nothing
                broken = True
                self._refuse(appends, tasks)
                self._failed(error)

    def _next(self) -> tuple[list[Append], list[WriterTask], bool]:
        """Wait for work, and take more queued work up to the size of a group; the flag is False at the end of the queue."""
        appends, tasks, count, size_bytes = list[Append](), list[WriterTask](), 0, 0
        work = self._queue.get()
        while work is not None:
            if isinstance(work, WriterTask):
                tasks.append(work)
            else:
                appends.append(work)
                count += len(work.events)
                size_bytes += work.size_bytes
            if count >= GROUP_EVENTS_MAX or size_bytes >= GROUP_BYTES_MAX:
                return appends, tasks, True
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return appends, tasks, True
        return appends, tasks, False

    def _write(self, appends: list[Append], tasks: list[WriterTask]) -> None:
        """Do the work. Remove finished work from the lists, so that after an error they hold only unfinished work."""
        if appends:
            self._finished(self._commit(appends.copy()))
            appends.clear()
        while tasks:
            self._run_task(tasks[0])
            del tasks[0]

    def _refuse(self, appends: list[Append], tasks: list[WriterTask]) -> None:
        error = LogClosedError("the log has failed; the events under way may or may not be stored")
        if appends:
            self._finished(GroupOutcome(appends, [], error))
        for task in tasks:
            task.done(error)

    def _commit(self, group: list[Append]) -> GroupOutcome:
        if used_bytes(self._connection) >= self.bytes_max:
            return GroupOutcome(group, [], LogFullError("the event log has reached its size limit"))
        try:
            records = self._transaction(lambda: self._insert(group))
        except (StorageFullError, LogUnavailableError) as error:
            return GroupOutcome(group, [], error)
        if records:
            self.head = records[-1].position
        return GroupOutcome(group, records, None)

    def _run_task(self, task: WriterTask) -> None:
        try:
            result: int | EventLogError = self._transaction(lambda: task.run(self._connection))
        except (StorageFullError, LogUnavailableError) as error:
            result = error
        task.done(result)

    def _transaction(self, run: Callable[[], _Result]) -> _Result:
        """Run `run` within a transaction.

        Raises `StorageFullError` or `LogUnavailableError` if nothing was changed and trying again helps.
        """
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = run()
            failpoints.reached("log.before_commit")
            connection.execute("COMMIT")
            failpoints.reached("log.after_commit")
        except sqlite3.OperationalError as error:
            if is_disk_full(error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise StorageFullError("the disk is full") from error
            if getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY" and not connection.in_transaction:
                raise LogUnavailableError("another process has locked the log's file; stop that process") from error
            raise
        # Before the acknowledgement: this call also checks that the file was neither moved nor removed.
        self._checkpoints.after_commit()
        return result

    def _insert(self, group: list[Append]) -> list[Record]:
        """Insert the group's events; set the results of each append, and return the new records."""
        self._now_ms = now_ms = max(unix_ms(self._clock), self._now_ms)
        flat = [event for append in group for event in append.events]
        fresh = (
            flat
            if len({(event.source, event.id) for event in flat}) == len(flat)
            else [flat[index] for index in sorted(_firsts(flat).values())]
        )
        position = self.head
        values: list[object] = []
        records: list[Record] = []
        results: Results = []
        for event, raw_id in zip(fresh, self._ids.take(now_ms, [event.partition for event in fresh]), strict=True):
            position += 1
            partition, source, own_id, type_, audience, digest, payload = event
            values += (position, partition, raw_id, now_ms, source, own_id, type_, audience, digest, payload)
            event_id = "evt_" + raw_id.hex()
            records.append(Record(SHARD, partition, position, event_id, type_, source, audience, now_ms, payload))
            results.append(Appended(event_id, partition, position, False))  # noqa: FBT003 - positional arguments cost half
        if self._execute_rows(values) < len(flat):
            results, records = self._resolve(flat, _firsts(flat), records)
        start = 0
        for append in group:
            append.results = results[start : start + len(append.events)]
            start += len(append.events)
        return records

    def _execute_rows(self, values: list[object]) -> int:
        inserted = 0
        step = _ROWS_PER_STATEMENT * _COLUMNS
        for start in range(0, len(values), step):
            part = values[start : start + step]
            rows = len(part) // _COLUMNS
            statement = _FULL_BATCH if rows == _ROWS_PER_STATEMENT else _INSERT.format(rows=",".join([_ROW] * rows))
            inserted += self._connection.execute(statement, part).rowcount
        return inserted

    def _resolve(self, flat: list[NewEvent], firsts: dict[tuple[str, str], int], records: list[Record]) -> tuple[Results, list[Record]]:
        """Decide whether each event is new, a duplicate or a conflict, if some events were in the log before."""
        ours = {record.position: record for record in records}
        results: Results = []
        kept: dict[int, Record] = {}
        for index, event in enumerate(flat):
            raw_id, partition, position, digest = self._connection.execute(_SAME_ID, (event.source, event.id)).fetchone()
            event_id = "evt_" + raw_id.hex()
            if digest != event.digest:
                results.append(Conflict(event_id))
                continue
            new = position in ours and firsts[event.source, event.id] == index
            if new:
                kept[position] = ours[position]
            results.append(Appended(event_id, partition, position, duplicate=not new))
        return results, [kept[position] for position in sorted(kept)]


def _firsts(events: Sequence[NewEvent]) -> dict[tuple[str, str], int]:
    """Return, for each source and id, the index of its first event."""
    return {(event.source, event.id): index for index, event in reversed(list(enumerate(events)))}
