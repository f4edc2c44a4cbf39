"""Ledger trims: what keeps the ledger from growing for ever, as plain functions over a connection, each a short step."""

import sqlite3
from collections.abc import Sequence

from services.delivery.ledger.rows import OPEN_COLUMNS, OpenRow, keep_record
from services.delivery.ledger.sqlite_queries import day_tables
from services.eventlog.record import Place, Record
from services.runtime.database import used_bytes

_OPEN = ", ".join(OPEN_COLUMNS)
_ROWS = 2_000


def recorded_through(connection: sqlite3.Connection) -> list[Place]:
    """Return for each partition the last position whose event is wholly in the ledger, and the event that stands there or right after."""
    rows = connection.execute("SELECT partition, position, event_id, subscription_id FROM cursors ORDER BY partition")
    return [
        Place(partition, position - 1, following_id=event_id) if through else Place(partition, position, event_id)
        for partition, position, event_id, through in rows
    ]


def first_uncopied(connection: sqlite3.Connection, copied_through: Sequence[Place]) -> list[Place]:
    """Return for each partition the lowest position that an unfinished delivery needs and of which no copy is kept.

    Only positions above those given are looked at; a partition without any is left out.
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
    """Return positions of a partition, above `after` up to `through`, that unfinished deliveries need and of which no copy is kept."""
    rows = connection.execute(
        "SELECT DISTINCT position FROM open WHERE partition = ? AND position > ? AND position <= ? AND NOT EXISTS"
        " (SELECT 1 FROM payloads WHERE payloads.partition = open.partition AND payloads.position = open.position)"
        " ORDER BY position LIMIT ?",
        (partition, after, through, limit),
    )
    return [Place(partition, row[0]) for row in rows]


def keep_payloads(connection: sqlite3.Connection, records: Sequence[Record]) -> None:
    """Keep copies of events that the log is about to drop."""
    rows = [(record.partition, record.position, keep_record(record)) for record in records]
    connection.executemany("INSERT OR IGNORE INTO payloads VALUES (?, ?, ?)", rows)


def drop_payloads(connection: sqlite3.Connection, after: tuple[int, int]) -> tuple[int, tuple[int, int] | None]:
    """Drop copies that no unfinished delivery needs any more, examining a bounded number of those after a partition and position.

    Return how many went, and the partition and position to go on after (None at the end).
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
    """Drop finished deliveries of days (YYYYMMDD) before one, a bounded number; return how many went.

    A day's table goes with its last rows: dropped whole, a large one would keep the writer for minutes.
    """
    old = [table for table in day_tables(connection) if table.removeprefix("done_") < before_day]
    return _drop_some(connection, old[-1], last=False) if old else 0


def shrink(connection: sqlite3.Connection, bytes_max: int) -> int:
    """Where the ledger takes more than `bytes_max`, drop some of the oldest finished deliveries; return how many."""
    tables = day_tables(connection)
    if not tables or used_bytes(connection) <= bytes_max:
        return 0
    return _drop_some(connection, tables[-1], last=len(tables) == 1)


def _drop_some(connection: sqlite3.Connection, table: str, *, last: bool) -> int:
    """Drop some of a table's rows, or the table where it has none and is not the last one; return how many rows went, 1 for a table."""
    dropped = connection.execute(
        f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY id LIMIT ?)",  # noqa: S608 - a table of ours
        (_ROWS,),
    ).rowcount
    if not dropped and not last:
        connection.execute(f"DROP TABLE {table}")
        return 1
    return dropped


def expired(connection: sqlite3.Connection, before_ms: int, limit: int) -> list[OpenRow]:
    """Return unfinished deliveries of events accepted before a time; their ids begin with that time."""
    bound = max(0, before_ms).to_bytes(6, "big")
    rows = connection.execute(f"SELECT {_OPEN} FROM open WHERE id < ? ORDER BY id LIMIT ?", (bound, limit))  # noqa: S608 - constants
    return [OpenRow(*row) for row in rows]
