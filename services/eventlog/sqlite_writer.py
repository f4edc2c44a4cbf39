"""SQLite writer: one thread that turns concurrent appends into few transactions.

append → [queue] → one transaction, one fsync → acknowledge

Law 1: a group is acknowledged after its commit, never before.
Law 2: a full disk refuses a group and heals; any other write error is final, since after a failed
fsync nobody knows what is on disk. The log then stops, and the process with it.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.eventlog.errors import EventLogError, LogClosedError, LogFullError, StorageFullError
from services.eventlog.record import Appended, Conflict, NewEvent, Record
from services.eventlog.uuid7 import GrowingUuid7
from services.runtime.clock import Clock, unix_ms
from services.runtime.database import WalCheckpoints, connect, is_disk_full, used_bytes

GROUP_EVENTS_MAX = 2000
# Rows of one INSERT statement: long statements keep the interpreter lock free for the event loop.
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


@dataclass(slots=True, eq=False)
class Append:
    """One call's events, and what became of them."""

    events: Sequence[NewEvent]
    results: Results | None = None

    @property
    def size_bytes(self) -> int:
        """How large the events are together."""
        return sum(len(event.event) for event in self.events)


@dataclass(frozen=True, slots=True)
class Step:
    """Other work on the writing connection, in a transaction of its own; `done` is told the result, None after a failure."""

    run: Callable[[sqlite3.Connection], int]
    done: Callable[[int | None], None]


@dataclass(frozen=True, slots=True)
class Settled:
    """A group of appends that is decided: durable, with its new records, or refused with an error."""

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
        settled: Callable[[Settled], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Open the log; `settled` and `failed` are called from the writer's thread."""
        self._clock = clock
        self._bytes_max = bytes_max
        self._settled = settled
        self._failed = failed
        self._queue: queue.SimpleQueue[Append | Step | None] = queue.SimpleQueue()
        self._connection = connect(path)
        self._checkpoints = WalCheckpoints(path, self._connection)
        newest = self._connection.execute("SELECT position, event_id, accepted_ms FROM events ORDER BY position DESC LIMIT 1").fetchone()
        (trimmed_to,) = self._connection.execute("SELECT value FROM meta WHERE name = 'trimmed_to'").fetchone()
        self.head = max(newest[0] if newest else 0, int(trimmed_to))
        self._ids = GrowingUuid7(newest[1] if newest else None)
        # Times of acceptance never go back, so that they can be searched by halving.
        self._now_ms = newest[2] if newest else 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._checkpoints.start()
        self._thread.start()

    def put(self, work: Append | Step) -> None:
        """Queue work; the caller bounds how much is queued."""
        self._queue.put(work)

    def close(self) -> None:
        """Commit what is queued, then end the thread and close the connection."""
        self._queue.put(None)
        self._thread.join()
        self._checkpoints.close()
        self._connection.close()

    def _run(self) -> None:
        failure: BaseException | None = None
        while (work := self._queue.get()) is not None:
            if failure is not None:
                self._refuse(work)
                continue
            try:
                if isinstance(work, Step):
                    self._step(work)
                elif not self._write_group(work):
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the log can promise nothing from here on
                failure = error
                self._failed(error)

    def _refuse(self, work: Append | Step) -> None:
        if isinstance(work, Append):
            self._settled(Settled([work], [], LogClosedError("the log has failed")))
        else:
            work.done(None)

    def _write_group(self, first: Append) -> bool:
        """Commit `first` and what else is waiting; False where the end of the queue was met."""
        group, count, steps, more = [first], len(first.events), list[Step](), True
        while count < GROUP_EVENTS_MAX:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if work is None:
                more = False
                break
            if isinstance(work, Step):
                steps.append(work)
                continue
            group.append(work)
            count += len(work.events)
        try:
            self._settled(self._commit(group))
        except Exception:
            self._settled(Settled(group, [], LogClosedError("the commit failed; whether the events were kept is unknown")))
            raise
        for step in steps:
            self._step(step)
        return more

    def _commit(self, group: list[Append]) -> Settled:
        if used_bytes(self._connection) >= self._bytes_max:
            return Settled(group, [], LogFullError("the event log has reached its size limit"))
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            records = self._insert(group)
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if not is_disk_full(error):
                raise
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return Settled(group, [], StorageFullError("the disk is full"))
        if records:
            self.head = records[-1].position
        self._checkpoints.after_commit()
        return Settled(group, records, None)

    def _insert(self, group: list[Append]) -> list[Record]:
        """Insert the group's events; sets each append's results and returns the new records."""
        self._now_ms = now_ms = max(unix_ms(self._clock), self._now_ms)
        flat = [event for append in group for event in append.events]
        firsts = {(event.source, event.id): index for index, event in reversed(list(enumerate(flat)))}
        fresh = [flat[index] for index in sorted(firsts.values())] if len(firsts) < len(flat) else flat
        ids = self._ids.take(now_ms, len(fresh))
        position = self.head
        values: list[object] = []
        records: list[Record] = []
        for event, event_id in zip(fresh, ids, strict=True):
            position += 1
            partition, source, own_id, type_, audience, digest, payload = event
            values += (position, partition, event_id, now_ms, source, own_id, type_, audience, digest, payload)
            records.append(Record(partition, position, "evt_" + event_id.hex(), type_, source, audience, now_ms, payload))
        inserted = self._execute_rows(values)
        if inserted == len(flat):
            results: Results = [Appended(record.event_id, record.partition, record.position, duplicate=False) for record in records]
        else:
            results, records = self._resolve(flat, firsts, records)
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
        """Decide on each event where some were there before: first, duplicate, or conflict."""
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

    def _step(self, step: Step) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        result = step.run(connection)
        connection.execute("COMMIT")
        self._checkpoints.after_commit()
        step.done(result)
