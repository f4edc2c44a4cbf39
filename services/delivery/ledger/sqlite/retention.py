"""Retention: bounds the ledger's size; plain functions over a connection, each a short step.

retention_loop → ledger → [retention: day_tables]
"""

import sqlite3
from collections.abc import Sequence

from services.delivery.ledger.rows import encode_record
from services.delivery.ledger.sqlite.day_tables import drop_day, stored_days, table_of
from services.eventlog.record import Record
from services.runtime.database import used_bytes

_ROWS = 2_000


def keep_copies(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """See `Ledger.keep_copies`."""
    rows = [(record.shard, record.position, encode_record(record)) for record in records]
    connection.executemany("INSERT OR IGNORE INTO payloads VALUES (?, ?, ?)", rows)


def drop_copies(connection: sqlite3.Connection, after: tuple[int, int]) -> tuple[int, tuple[int, int] | None]:
    """Drop event copies that no unfinished delivery needs. One call examines at most 2000 copies after a shard and position.

    Return how many copies were dropped, and the shard and position to continue after (None at the end).
    """
    examined = connection.execute(
        "SELECT shard, position FROM payloads WHERE (shard, position) > (?, ?) ORDER BY shard, position LIMIT ?",
        (*after, _ROWS),
    ).fetchall()
    if not examined:
        return 0, None
    dropped = connection.execute(
        "DELETE FROM payloads WHERE (shard, position) > (?, ?) AND (shard, position) <= (?, ?) AND NOT EXISTS"
        " (SELECT 1 FROM open WHERE open.shard = payloads.shard AND open.position = payloads.position)",
        (*after, *examined[-1]),
    ).rowcount
    return dropped, examined[-1] if len(examined) == _ROWS else None


def drop_days(connection: sqlite3.Connection, before_day: str) -> int | None:
    """Drop at most 2000 finished deliveries of days before `before_day` (YYYYMMDD).

    Return how many were dropped, None if no such day is left. A day's table is dropped only when it is empty: to drop a large table
    whole would block the writer for minutes.
    """
    old = [day for day in stored_days(connection) if day < before_day]
    return _drop_some(connection, old[-1], last=False) if old else None


def shrink(connection: sqlite3.Connection, bytes_max: int) -> int | None:
    """Drop at most 2000 of the oldest finished deliveries if the ledger takes more than `bytes_max`.

    Return how many were dropped, None if the ledger is small enough or no finished delivery is left.
    """
    days = stored_days(connection)
    if not days or used_bytes(connection) <= bytes_max:
        return None
    return _drop_some(connection, days[-1], last=len(days) == 1)


def _drop_some(connection: sqlite3.Connection, day: str, *, last: bool) -> int | None:
    """Drop some of a day's rows, or its table if that is empty and not the last one; return how many rows, None if nothing was dropped."""
    table = table_of(day)
    dropped = connection.execute(
        f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?)",  # noqa: S608 - a table of ours
        (_ROWS,),
    ).rowcount
    if dropped:
        return dropped
    if last:
        return None
    drop_day(connection, day)
    return 0
