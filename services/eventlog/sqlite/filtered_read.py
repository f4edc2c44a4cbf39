"""Filtered read: a page of the records of a range that match a filter, read through an index that holds all filtered columns.

log → [filtered_read] → SQLite

The index `events_by_filter` is in the order of positions. A record that does not match costs one entry of that index, about a
twentieth of the record, and SQLite compares the entry without Python and without the interpreter's lock.

Law 1: one page is one state of the log: what was trimmed before it shows in `first_available`.
Law 2: a page ends where its records, bytes, examined positions or time end. At least one step of positions is examined.
"""

import sqlite3

from services.eventlog.filtered_read import ReadPage, ReadQuery
from services.eventlog.record import Record, ShardPosition
from services.eventlog.sqlite.queries import RECORD, SHARD, record_of
from services.runtime.event_types import type_ranges
from services.runtime.listing_reader import Budget

# How many positions one statement examines. The time is checked between two statements.
_EXAMINED_STEP = 8_192
_BOUNDS = "SELECT CAST(value AS INTEGER), (SELECT max(position) FROM events) FROM meta WHERE name = 'trimmed_to'"


def read_page(connection: sqlite3.Connection, query: ReadQuery, log_id: str, budget: Budget) -> ReadPage:
    """Return the next page of a range; see `EventReader.read`."""
    connection.execute("BEGIN")
    try:
        return _read_page(connection, query, log_id, budget)
    finally:
        connection.execute("COMMIT")


def _read_page(connection: sqlite3.Connection, query: ReadQuery, log_id: str, budget: Budget) -> ReadPage:
    trimmed, newest = connection.execute(_BOUNDS).fetchone()
    after, head = query.after[0].position, newest or trimmed
    end = max(after, min(query.through[0].position, head) if query.through else head)
    scanned = min(max(after, trimmed), end)
    end = min(end, scanned + query.examined_max)
    statement, values = _statement(query)
    records, size = list[Record](), 0
    while scanned < end:
        step_end = min(end, scanned + _EXAMINED_STEP)
        for row in connection.execute(statement, (scanned, step_end, *values, query.records_max - len(records))):
            size += len(row[-1])
            if size > query.bytes_max and records:
                return _page(records, records[-1].position, trimmed, log_id)
            records.append(record_of(row))
        if len(records) >= query.records_max:
            return _page(records, records[-1].position, trimmed, log_id)
        scanned = step_end
        if budget.is_spent:
            break
    return _page(records, scanned, trimmed, log_id)


def _page(records: list[Record], scanned: int, trimmed: int, log_id: str) -> ReadPage:
    return ReadPage(records, [ShardPosition(SHARD, scanned)], [ShardPosition(SHARD, trimmed + 1)], log_id)


def _statement(query: ReadQuery) -> tuple[str, list[object]]:
    """Return the statement of a step, and the values between its two bounds and its limit."""
    names, ranges = type_ranges(query.types)
    wanted = ["(type >= ? AND type < ?)"] * len(ranges)
    values: list[object] = [text for each in ranges for text in each]
    if names:
        wanted.append(f"type IN ({_marks(len(names))})")
        values += names
    conditions = ["position > ?", "position <= ?", f"({' OR '.join(wanted)})"]
    if query.audiences:
        conditions.append(f"audience IN ({_marks(len(query.audiences))})")
        values += query.audiences
    if query.source:
        conditions.append("source = ?")
        values.append(query.source)
    where = " AND ".join(conditions)
    # Without the hint, SQLite reads the table itself, whose key is the position as well.
    return f"SELECT {RECORD} FROM events INDEXED BY events_by_filter WHERE {where} ORDER BY position LIMIT ?", values  # noqa: S608 - constants


def _marks(count: int) -> str:
    return ",".join("?" * count)
