"""SQLite trims: bound the ledger's size; plain functions over a connection, each a short step.

retention_loop → [sqlite_trims] → sqlite
"""

import sqlite3
from collections.abc import Sequence

from services.delivery.ledger.rows import OPEN_COLUMNS, OpenRow, keep_record
from services.delivery.ledger.sqlite_queries import day_tables
from services.eventlog.record import Place, Record
from services.runtime.database import used_bytes

_OPEN = ", ".join(OPEN_COLUMNS)
_ROWS = 2_000


def recorded_through(connection: sqlite3.Connection) -> list[Place]:
    """Return for each partition the last position whose event is wholly in the ledger.

    Each place also has the id of the event there, or of the next event if that one is partly in the ledger.
    """
    rows = connection.execute("SELECT partition, position, event_id, subscription_id FROM cursors ORDER BY partition")
    return [
        Place(partition, position - 1, following_id=event_id) if through else Place(partition, position, event_id)
        for partition, position, event_id, through in rows
    ]


def first_uncopied(connection: sqlite3.Connection, copied_through: Sequence[Place]) -> list[Place]:
    """Return for each partition the lowest position whose event an unfinished delivery needs and the ledger has no copy of.

    Only positions above `copied_through` count; a partition without such a position is left out.
    """
    query = (
        "SELECT position FROM open WHERE partition = ? AND position > ? AND NOT EXISTS"
        " (SELECT 1 FROM payloads WHERE payloads.partition = open.partition AND payloads.position = open.position)"
        " ORDER BY position LIMIT 1"
    )
    found = []
    for place in copied_through:
        row = connection.execute(query, (place.partition, place.position)).fetchone()
        if row is not None:
            found.append(Place(place.partition, row[0]))
    return found


def needed_copies(connection: sqlite3.Connection, partition: int, after: int, through: int, limit: int) -> list[Place]:
    """Return up to `limit` positions above `after`, up to `through`, that unfinished deliveries need and the ledger has no copy of."""
    rows = connection.execute(
        "SELECT DISTINCT position FROM open WHERE partition = ? AND position > ? AND position <= ? AND NOT EXISTS"
        " (SELECT 1 FROM payloads WHERE payloads.partition = open.partition AND payloads.position = open.position)"
        " ORDER BY position LIMIT ?",
        (partition, after, through, limit),
    )
    return [Place(partition, row[0]) for row in rows]


def keep_payloads(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Store copies of events that the event log is about to drop."""
    rows = [(record.partition, record.position, keep_record(record)) for record in records]
    connection.executemany("INSERT OR IGNORE INTO payloads VALUES (?, ?, ?)", rows)


def drop_payloads(connection: sqlite3.Connection, after: tuple[int, int]) -> tuple[int, tuple[int, int] | None]:
    """Drop event copies that no unfinished delivery needs. One call examines at most 2000 copies after a partition and position.

    Return how many copies were dropped, and the partition and position to continue after (None at the end).
    """
    examined = connection.execute(
        "SELECT partition, position FROM payloads WHERE (partition, position) > (?, ?) ORDER BY partition, position LIMIT ?",
        (*after, _ROWS),
    ).fetchall()
    if not examined:
        return 0, None
    dropped = connection.execute(
        "DELETE FROM payloads WHERE (partition, position) > (?, ?) AND (partition, position) <= (?, ?) AND NOT EXISTS"
        " (SELECT 1 FROM open WHERE open.partition = payloads.partition AND open.position = payloads.position)",
        (*after, *examined[-1]),
    ).rowcount
    return dropped, examined[-1] if len(examined) == _ROWS else None


def drop_days(connection: sqlite3.Connection, before_day: str) -> int:
    """Drop at most 2000 finished deliveries of days before `before_day` (YYYYMMDD); return how many were dropped.

    A day's table is dropped only when it is empty: to drop a large table whole would block the writer for minutes.
    """
    old = [table for table in day_tables(connection) if table.removeprefix("done_") < before_day]
    return _drop_some(connection, old[-1], last=False) if old else 0


def shrink(connection: sqlite3.Connection, bytes_max: int) -> int:
    """If the ledger takes more than `bytes_max`, drop at most 2000 of the oldest finished deliveries; return how many were dropped."""
    tables = day_tables(connection)
    if not tables or used_bytes(connection) <= bytes_max:
        return 0
    return _drop_some(connection, tables[-1], last=len(tables) == 1)


def _drop_some(connection: sqlite3.Connection, table: str, *, last: bool) -> int:
    """Drop some of a table's rows, or an empty table that is not the last one; return how many rows were dropped, 1 for a table."""
    dropped = connection.execute(
        f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?)",  # noqa: S608 - a table of ours
        (_ROWS,),
    ).rowcount
    if not dropped and not last:
        connection.execute(f"DROP TABLE {table}")
        return 1
    return dropped


def expired(connection: sqlite3.Connection, before_ms: int, limit: int) -> list[OpenRow]:
    """Return up to `limit` unfinished deliveries of events accepted before `before_ms`; a delivery's id begins with that time."""
    bound = max(0, before_ms).to_bytes(6, "big")
    rows = connection.execute(f"SELECT {_OPEN} FROM open WHERE id < ? ORDER BY id LIMIT ?", (bound, limit))  # noqa: S608 - constants
    return [OpenRow(*row) for row in rows]
