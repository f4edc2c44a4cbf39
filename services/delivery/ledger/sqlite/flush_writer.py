"""Flush writer: writes one flush within a transaction.

ledger → [flush_writer: day_tables, inserting, id_collisions, cursor_groups, ranges, lane_tables]
"""

import sqlite3
from collections.abc import Iterable

from services.delivery.ledger.protocol import DeliveryKey, Flush
from services.delivery.ledger.rows import DONE_COLUMNS, OPEN_COLUMNS, DoneRow
from services.delivery.ledger.sqlite import cursor_groups, lane_tables, ranges
from services.delivery.ledger.sqlite.day_tables import create_day, day_of, table_of
from services.delivery.ledger.sqlite.id_collisions import DeliveryId, insert_renamed
from services.delivery.ledger.sqlite.inserting import insert
from services.delivery.ledger.sqlite.retention import keep_copies

# The names of the ledger's own state in `meta`.
LOG_ID = "log_id"
CLOCK_JUMPED = "clock_jumped_ms"
WRITTEN = "written_ms"
ROUTING_NOTE = "routing_note"
_OPEN = f"INSERT OR IGNORE INTO open ({', '.join(OPEN_COLUMNS)})"
_DONE_COLUMNS = ", ".join(DONE_COLUMNS)


class FlushWriter:
    """Writes flushes, and remembers which days have a table."""

    def __init__(self, delivery_id: DeliveryId) -> None:
        self._delivery_id = delivery_id
        self._days: set[str] = set()

    def forget_days(self) -> None:
        """Forget which days have a table, because a table may be gone."""
        self._days.clear()

    def flush(self, connection: sqlite3.Connection, flush: Flush) -> dict[DeliveryKey, bytes]:
        """Write a flush within the transaction of a connection; return what `Ledger.flush` returns."""
        renamed: dict[DeliveryKey, bytes] = {}
        due_now = "UPDATE open SET due_ms = ?2 WHERE subscription_id = ?1 AND due_ms > ?2 AND (?3 = 0 OR failed_sink != ?3)"
        connection.executemany(due_now, flush.due_now)
        if insert(connection, _OPEN, len(OPEN_COLUMNS), flush.opened) < len(flush.opened):
            renamed |= insert_renamed(connection, "open", flush.opened, self._delivery_id)
        if flush.updated:
            connection.executemany(
                "UPDATE open SET attempt_count = ?, attempts = ?, last_status = ?, due_ms = ?, failed_sink = ? WHERE id = ?",
                [(row.attempt_count, row.attempts, row.last_status, row.due_ms, row.failed_sink, row.id) for row in flush.updated],
            )
        if flush.opened or flush.updated or flush.lanes:
            set_meta(connection, WRITTEN, str(flush.written_ms))
        if flush.closed:
            connection.executemany("DELETE FROM open WHERE id = ?", [(each,) for each in flush.closed])
        for day, rows in _by_day(flush.finished).items():
            if day not in self._days:
                create_day(connection, day)
                self._days.add(day)
            table = table_of(day)
            if insert(connection, f"INSERT OR IGNORE INTO {table} ({_DONE_COLUMNS})", len(DONE_COLUMNS), rows) < len(rows):
                renamed |= insert_renamed(connection, table, rows, self._delivery_id)
        if flush.cursors or flush.joined:
            cursor_groups.write_cursors(connection, flush.cursors)
            cursor_groups.join(connection, flush.joined)
        if flush.has_lanes:
            _write_lanes(connection, flush)
        return renamed


def _write_lanes(connection: sqlite3.Connection, flush: Flush) -> None:
    # Deletions come first: a range may end, and another one of the same key may begin, in one flush.
    ranges.delete_ranges(connection, flush.ranges_done)
    ranges.write_ranges(connection, flush.ranges)
    ranges.write_ended(connection, flush.ended)
    ranges.delete_jobs(connection, flush.jobs_done)
    ranges.write_jobs(connection, flush.jobs)
    ranges.write_set_aside(connection, flush.set_aside)
    lane_tables.delete_lanes(connection, flush.lanes_done)
    lane_tables.write_lanes(connection, flush.lanes)
    lane_tables.write_notices(connection, flush.notices)
    keep_copies(connection, flush.copies)


def set_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Set a value of the ledger's own state."""
    connection.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))


def _by_day(rows: Iterable[DoneRow]) -> dict[str, list[DoneRow]]:
    days: dict[str, list[DoneRow]] = {}
    for row in rows:
        days.setdefault(day_of(row.finished_ms), []).append(row)
    return days
