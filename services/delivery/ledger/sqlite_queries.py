"""SQLite queries: the ledger's reads, as plain functions over a connection.

lane_refill, server → [sqlite_queries] → sqlite
"""

import contextlib
import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.delivery.ledger.rows import DONE_COLUMNS, OPEN_COLUMNS, DoneRow, OpenRow
from services.delivery.model import State
from services.eventlog.record import Place
from services.runtime.consumer_scope import Everyone, Scope
from services.runtime.ids import is_id
from services.runtime.listing_reader import Budget

_OPEN = ", ".join(OPEN_COLUMNS)
_DONE = ", ".join(DONE_COLUMNS)
# How many rows of each table a listing examines in one step, and how many steps it takes for one page before it answers with what it has.
_EXAMINED_STEP = 1_000
_STEPS_MAX = 50
# Ids have 16 bytes.
_ABOVE_ALL = b"\xff" * 17


class Wanted(NamedTuple):
    """The filter of a listing; an empty text or None matches everything."""

    before_id: bytes | None
    limit: int
    scope: Scope
    state: State | None
    subscription_id: str
    event_id: str
    event_type: str
    start_ms: int | None
    end_ms: int | None


def unfinished(connection: sqlite3.Connection, subscription_id: str, due_by_ms: int, limit: int) -> list[OpenRow]:
    """Return up to `limit` of a lane's deliveries due by `due_by_ms`: first those never tried, by position, then the others by due time."""
    rows = connection.execute(
        f"SELECT {_OPEN} FROM open WHERE subscription_id = ? AND due_ms <= ? ORDER BY due_ms, position LIMIT ?",  # noqa: S608 - constants
        (subscription_id, due_by_ms, limit),
    )
    return [OpenRow(*row) for row in rows]


def next_due_ms(connection: sqlite3.Connection, subscription_id: str, after_ms: int) -> int | None:
    """Return the earliest due time of a lane's deliveries after `after_ms`; None if there is no such delivery."""
    row = connection.execute(
        "SELECT min(due_ms) FROM open WHERE subscription_id = ? AND due_ms > ?", (subscription_id, after_ms)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def lanes_with_unfinished(connection: sqlite3.Connection) -> list[str]:
    """Return the ids of all subscriptions with unfinished deliveries."""
    lanes: list[str] = []
    last = ""
    while (row := connection.execute("SELECT min(subscription_id) FROM open WHERE subscription_id > ?", (last,)).fetchone()[0]) is not None:
        lanes.append(row)
        last = row
    return lanes


def payloads(connection: sqlite3.Connection, places: Sequence[Place]) -> list[bytes]:
    """Return the ledger's copies of the records at `places`; a place without a copy is left out."""
    query = "SELECT record FROM payloads WHERE partition = ? AND position = ?"
    rows = [connection.execute(query, (place.partition, place.position)).fetchone() for place in places]
    return [row[0] for row in rows if row is not None]


def meta(connection: sqlite3.Connection, name: str) -> str | None:
    """Return a value of the ledger's own state, or None."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def find(connection: sqlite3.Connection, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
    """Return one delivery of the scope, unfinished or finished, or None."""
    with _snapshot(connection):
        found = _found(connection, delivery_id)
    return found if found is not None and scope.includes(found.consumer_id) else None


def _found(connection: sqlite3.Connection, delivery_id: bytes) -> OpenRow | DoneRow | None:
    row = connection.execute(f"SELECT {_OPEN} FROM open WHERE id = ?", (delivery_id,)).fetchone()  # noqa: S608 - constants
    if row is not None:
        return OpenRow(*row)
    for table in day_tables(connection):
        row = connection.execute(f"SELECT {_DONE} FROM {table} WHERE id = ?", (delivery_id,)).fetchone()  # noqa: S608 - a table of ours
        if row is not None:
            return DoneRow(*row)
    return None


def newest(connection: sqlite3.Connection, wanted: Wanted, budget: Budget | None = None) -> tuple[list[OpenRow | DoneRow], bytes | None]:
    """Return the deliveries that match `wanted`, the newest event first, and the id to continue below (None at the end).

    A call examines a bounded number of rows, and stops when the budget is spent. So a page may have fewer rows than `limit`, even no
    row, although more follow.
    """
    found: list[OpenRow | DoneRow] = []
    bottom, top = _bounds(wanted)
    with _snapshot(connection):
        tables = ["open"] if wanted.state in {None, State.PENDING} else []
        tables += day_tables(connection) if wanted.state is not State.PENDING else []
        for _ in range(_STEPS_MAX):
            floor = max((_floor(connection, table, wanted.scope, bottom, top) for table in tables), default=bottom)
            rows = [row for table in tables for row in _between(connection, table, wanted, floor, top, wanted.limit - len(found))]
            found += heapq.nlargest(wanted.limit - len(found), rows, key=lambda row: row.id)
            if len(found) == wanted.limit:
                return found, found[-1].id
            top = floor
            if top <= bottom:
                return found, None
            if budget is not None and budget.is_spent:
                break
    return found, top


def _bounds(wanted: Wanted) -> tuple[bytes, bytes]:
    """Return the lowest id that can match, and a bound above the highest. An id begins with its event's time, 48 bits of milliseconds."""
    bottoms, tops = [_time_bound(wanted.start_ms or 0)], [_ABOVE_ALL if wanted.before_id is None else wanted.before_id]
    if wanted.end_ms is not None:
        tops.append(_time_bound(wanted.end_ms))
    if wanted.event_id:
        event_ms = int(wanted.event_id[4:16], 16) if is_id(wanted.event_id, "evt") else 0
        bottoms.append(_time_bound(event_ms))
        tops.append(_time_bound(event_ms + 1))
    return max(bottoms), min(tops)


def _time_bound(time_ms: int) -> bytes:
    return max(0, min(time_ms, (1 << 48) - 1)).to_bytes(6, "big")


def _floor(connection: sqlite3.Connection, table: str, scope: Scope, bottom: bytes, top: bytes) -> bytes:
    """Return the lowest id that one step examines in a table; `bottom` if fewer rows than a whole step are left."""
    source, values = _source(table, scope)
    row = connection.execute(
        f"SELECT id FROM {source} id >= ? AND id < ? ORDER BY id DESC LIMIT 1 OFFSET ?",  # noqa: S608 - a table of ours
        (*values, bottom, top, _EXAMINED_STEP - 1),
    ).fetchone()
    return bottom if row is None else bytes(row[0])


def _between(
    connection: sqlite3.Connection, table: str, wanted: Wanted, floor: bytes, top: bytes, limit: int
) -> Iterator[OpenRow | DoneRow]:
    """Return the newest matching rows of a table with ids from `floor` up to `top` (exclusive)."""
    source, owner = _source(table, wanted.scope)
    conditions, values = ["id >= ?", "id < ?"], list[object]([*owner, floor, top])
    for column in ("subscription_id", "event_id", "event_type"):
        if value := getattr(wanted, column):
            # The `+` keeps SQLite from using another index: it would have to sort all of that index's rows by id.
            conditions.append(f"+{column} = ?")
            values.append(value)
    if wanted.state is not None and table != "open":
        conditions.append("+state = ?")
        values.append(int(wanted.state))
    columns, kind = (_OPEN, OpenRow) if table == "open" else (_DONE, DoneRow)
    rows = connection.execute(
        f"SELECT {columns} FROM {source} {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",  # noqa: S608 - constants and a table of ours
        (*values, limit),
    )
    return map(kind._make, rows)


def _source(table: str, scope: Scope) -> tuple[str, list[str]]:
    """Return the SQL for the rows to examine, and its values: a consumer's rows, through its index, or the whole table."""
    if isinstance(scope, Everyone):
        return f"{table} WHERE", []
    return f"{table} INDEXED BY {table}_by_consumer WHERE consumer_id = ? AND", [scope.consumer_id]


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Read from one snapshot: between two statements a row may move from open to done, or a day's table may be dropped."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def day_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables of finished deliveries, the newest day first."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'done_[0-9]*' ORDER BY name DESC")
    return [row[0] for row in rows]
