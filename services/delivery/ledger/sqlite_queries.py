"""Ledger reads: the ledger's queries, as plain functions over a connection."""

import contextlib
import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.delivery.ledger.rows import DONE_COLUMNS, OPEN_COLUMNS, DoneRow, OpenRow
from services.delivery.model import State
from services.eventlog.record import Place
from services.runtime.ids import is_id
from services.runtime.listing_reader import Budget

_OPEN = ", ".join(OPEN_COLUMNS)
_DONE = ", ".join(DONE_COLUMNS)
# How many rows of each table a listing examines in one step, and how many steps for one page before it answers with what it has.
_EXAMINED_STEP = 1_000
_STEPS_MAX = 50
# Ids have 16 bytes.
_ABOVE_ALL = b"\xff" * 17


class Wanted(NamedTuple):
    """Which deliveries a listing is about; empty texts and None stand for any."""

    before_id: bytes | None
    limit: int
    consumer_id: str
    state: State | None
    subscription_id: str
    event_id: str
    event_type: str
    start_ms: int | None
    end_ms: int | None


def unfinished(connection: sqlite3.Connection, subscription_id: str, due_by_ms: int, limit: int) -> list[OpenRow]:
    """Return a lane's deliveries that are due: first those never tried, by position, then the others by due time."""
    rows = connection.execute(
        f"SELECT {_OPEN} FROM open WHERE subscription_id = ? AND due_ms <= ? ORDER BY due_ms, position LIMIT ?",  # noqa: S608 - constants
        (subscription_id, due_by_ms, limit),
    )
    return [OpenRow(*row) for row in rows]


def next_due_ms(connection: sqlite3.Connection, subscription_id: str, after_ms: int) -> int | None:
    """Return when the next of a lane's deliveries becomes due after a time, None where none waits."""
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
    """Return the records that the ledger keeps of events at `places`."""
    query = "SELECT record FROM payloads WHERE partition = ? AND position = ?"
    rows = [connection.execute(query, (place.partition, place.position)).fetchone() for place in places]
    return [row[0] for row in rows if row is not None]


def meta(connection: sqlite3.Connection, name: str) -> str | None:
    """Return a value of the ledger's own state."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def find(connection: sqlite3.Connection, delivery_id: bytes) -> OpenRow | DoneRow | None:
    """Return one delivery, wherever it stands."""
    with _snapshot(connection):
        row = connection.execute(f"SELECT {_OPEN} FROM open WHERE id = ?", (delivery_id,)).fetchone()  # noqa: S608 - constants
        if row is not None:
            return OpenRow(*row)
        for table in day_tables(connection):
            row = connection.execute(f"SELECT {_DONE} FROM {table} WHERE id = ?", (delivery_id,)).fetchone()  # noqa: S608 - a table of ours
            if row is not None:
                return DoneRow(*row)
        return None


def newest(connection: sqlite3.Connection, wanted: Wanted, budget: Budget | None = None) -> tuple[list[OpenRow | DoneRow], bytes | None]:
    """Return deliveries that `wanted` describes, the newest event first, and the id to go on below (None at the end).

    It examines a bounded number of rows, and none after the budget is spent: a page may hold fewer than asked, also none, and go on.
    """
    found: list[OpenRow | DoneRow] = []
    bottom, top = _bounds(wanted)
    with _snapshot(connection):
        tables = ["open"] if wanted.state in {None, State.PENDING} else []
        tables += day_tables(connection) if wanted.state is not State.PENDING else []
        for _ in range(_STEPS_MAX):
            floor = max((_floor(connection, table, wanted.consumer_id, bottom, top) for table in tables), default=bottom)
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
    """Return the lowest id that may be wanted and one above the highest. Ids begin with their event's time, 48 bits of milliseconds."""
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


def _floor(connection: sqlite3.Connection, table: str, consumer_id: str, bottom: bytes, top: bytes) -> bytes:
    """Return the id down to which one step examines a table, `bottom` if that is less than a whole step."""
    row = connection.execute(
        f"SELECT id FROM {_source(table, consumer_id)} id >= ? AND id < ? ORDER BY id DESC LIMIT 1 OFFSET ?",  # noqa: S608 - a table of ours
        (*([consumer_id] if consumer_id else []), bottom, top, _EXAMINED_STEP - 1),
    ).fetchone()
    return bottom if row is None else bytes(row[0])


def _between(
    connection: sqlite3.Connection, table: str, wanted: Wanted, floor: bytes, top: bytes, limit: int
) -> Iterator[OpenRow | DoneRow]:
    """Return the newest wanted rows of a table with ids from `floor` up to `top` (exclusive)."""
    conditions, values = ["id >= ?", "id < ?"], list[object]([*([wanted.consumer_id] if wanted.consumer_id else []), floor, top])
    for column in ("subscription_id", "event_id", "event_type"):
        if value := getattr(wanted, column):
            # By the order of the ids, not by another index, whose rows would all have to be sorted.
            conditions.append(f"+{column} = ?")
            values.append(value)
    if wanted.state is not None and table != "open":
        conditions.append("+state = ?")
        values.append(int(wanted.state))
    columns, kind = (_OPEN, OpenRow) if table == "open" else (_DONE, DoneRow)
    rows = connection.execute(
        f"SELECT {columns} FROM {_source(table, wanted.consumer_id)} {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",  # noqa: S608 - constants and a table of ours
        (*values, limit),
    )
    return map(kind._make, rows)


def _source(table: str, consumer_id: str) -> str:
    """Return what of a table is examined: what belongs to a consumer, by its index, or everything."""
    return f"{table} INDEXED BY {table}_by_consumer WHERE consumer_id = ? AND" if consumer_id else f"{table} WHERE"


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """See one moment: between two statements a row may move from open to done, and a day's table may go."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def day_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables of finished deliveries, the newest day first."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'done_[0-9]*' ORDER BY name DESC")
    return [row[0] for row in rows]
