"""Queries: the ledger's reads, as plain functions over a connection.

lane_refill, retention_loop, server → ledger → [queries]
"""

import contextlib
import heapq
import sqlite3
from collections.abc import Iterator, Sequence

from services.delivery.ledger.protocol import Listing, Page, recorded_position
from services.delivery.ledger.rows import DONE_COLUMNS, OPEN_COLUMNS, DoneRow, OpenRow, decode_record
from services.delivery.ledger.sqlite.cursor_groups import first_cursor
from services.delivery.ledger.sqlite.day_tables import stored_days, table_of
from services.delivery.model import State
from services.eventlog.record import Record, ShardPosition
from services.runtime.consumer_scope import Everyone, Scope
from services.runtime.ids import is_id
from services.runtime.listing_reader import Budget

_OPEN = ", ".join(OPEN_COLUMNS)
_DONE = ", ".join(DONE_COLUMNS)
# How many rows of each table a listing examines in one step, and how many steps it takes for one page before it answers with what it has.
_EXAMINED_STEP = 1_000
_STEPS_MAX = 50
_EVER_MS = 1 << 53
# Ids have 16 bytes.
_ABOVE_ALL = b"\xff" * 17


def due_rows(connection: sqlite3.Connection, subscription_id: str, due_by_ms: int | None, limit: int) -> list[OpenRow]:
    """See `Ledger.due_rows`."""
    rows = connection.execute(
        f"SELECT {_OPEN} FROM open WHERE subscription_id = ? AND due_ms <= ? ORDER BY due_ms, position LIMIT ?",  # noqa: S608 - constants
        (subscription_id, _EVER_MS if due_by_ms is None else due_by_ms, limit),
    )
    return [OpenRow(*row) for row in rows]


def next_due_ms(connection: sqlite3.Connection, subscription_id: str, after_ms: int) -> int | None:
    """See `Ledger.next_due_ms`."""
    row = connection.execute(
        "SELECT min(due_ms) FROM open WHERE subscription_id = ? AND due_ms > ?", (subscription_id, after_ms)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def lanes(connection: sqlite3.Connection) -> list[str]:
    """See `Ledger.lanes`."""
    found: list[str] = []
    last = ""
    while (row := connection.execute("SELECT min(subscription_id) FROM open WHERE subscription_id > ?", (last,)).fetchone()[0]) is not None:
        found.append(row)
        last = row
    return found


def expired_rows(connection: sqlite3.Connection, accepted_before_ms: int, limit: int) -> list[OpenRow]:
    """See `Ledger.expired_rows`. A delivery's id begins with the time of its event's acceptance."""
    bound = max(0, accepted_before_ms).to_bytes(6, "big")
    rows = connection.execute(f"SELECT {_OPEN} FROM open WHERE id < ? ORDER BY id LIMIT ?", (bound, limit))  # noqa: S608 - constants
    return [OpenRow(*row) for row in rows]


def recorded_place(connection: sqlite3.Connection) -> list[ShardPosition]:
    """See `Ledger.recorded_place`."""
    return [recorded_position(each) for each in first_cursor(connection).shards]


def first_uncopied(connection: sqlite3.Connection, copied_through: Sequence[ShardPosition]) -> list[ShardPosition]:
    """See `Ledger.first_uncopied`."""
    query = (
        "SELECT position FROM open WHERE shard = ? AND position > ? AND NOT EXISTS"
        " (SELECT 1 FROM payloads WHERE payloads.shard = open.shard AND payloads.position = open.position)"
        " ORDER BY position LIMIT 1"
    )
    found = []
    for place in copied_through:
        row = connection.execute(query, (place.shard, place.position)).fetchone()
        if row is not None:
            found.append(ShardPosition(place.shard, row[0]))
    return found


def uncopied(connection: sqlite3.Connection, shard: int, after: int, through: int, limit: int) -> list[ShardPosition]:
    """See `Ledger.uncopied`."""
    rows = connection.execute(
        "SELECT DISTINCT position FROM open WHERE shard = ? AND position > ? AND position <= ? AND NOT EXISTS"
        " (SELECT 1 FROM payloads WHERE payloads.shard = open.shard AND payloads.position = open.position)"
        " ORDER BY position LIMIT ?",
        (shard, after, through, limit),
    )
    return [ShardPosition(shard, row[0]) for row in rows]


def copies(connection: sqlite3.Connection, positions: Sequence[ShardPosition]) -> list[Record]:
    """See `Ledger.copies`."""
    query = "SELECT record FROM payloads WHERE shard = ? AND position = ?"
    rows = [connection.execute(query, (each.shard, each.position)).fetchone() for each in positions]
    return [decode_record(row[0]) for row in rows if row is not None]


def find(connection: sqlite3.Connection, scope: Scope, delivery_id: bytes) -> OpenRow | DoneRow | None:
    """See `Ledger.find`."""
    with _snapshot(connection):
        found = _found(connection, delivery_id)
    return found if found is not None and scope.includes(found.consumer_id) else None


def _found(connection: sqlite3.Connection, delivery_id: bytes) -> OpenRow | DoneRow | None:
    row = connection.execute(f"SELECT {_OPEN} FROM open WHERE id = ?", (delivery_id,)).fetchone()  # noqa: S608 - constants
    if row is not None:
        return OpenRow(*row)
    for day in stored_days(connection):
        row = connection.execute(f"SELECT {_DONE} FROM {table_of(day)} WHERE id = ?", (delivery_id,)).fetchone()  # noqa: S608 - a table of ours
        if row is not None:
            return DoneRow(*row)
    return None


def page(connection: sqlite3.Connection, listing: Listing, budget: Budget) -> Page:
    """See `Ledger.page`. The page ends when the budget is spent."""
    found: list[OpenRow | DoneRow] = []
    bottom, top = _bounds(listing)
    with _snapshot(connection):
        tables = ["open"] if listing.state in {None, State.PENDING} else []
        tables += map(table_of, stored_days(connection)) if listing.state is not State.PENDING else []
        for _ in range(_STEPS_MAX):
            floor = max((_floor(connection, table, listing.scope, bottom, top) for table in tables), default=bottom)
            rows = [row for table in tables for row in _between(connection, table, listing, floor, top, listing.limit - len(found))]
            found += heapq.nlargest(listing.limit - len(found), rows, key=lambda row: row.id)
            if len(found) == listing.limit:
                return Page(found, found[-1].id)
            top = floor
            if top <= bottom:
                return Page(found, None)
            if budget.is_spent:
                break
    return Page(found, top)


def _bounds(listing: Listing) -> tuple[bytes, bytes]:
    """Return the lowest id that can match, and a bound above the highest. An id begins with its event's time, 48 bits of milliseconds."""
    bottoms, tops = [_time_bound(listing.start_ms or 0)], [_ABOVE_ALL if listing.before_id is None else listing.before_id]
    if listing.end_ms is not None:
        tops.append(_time_bound(listing.end_ms))
    if listing.event_id:
        event_ms = int(listing.event_id[4:16], 16) if is_id(listing.event_id, "evt") else 0
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
    connection: sqlite3.Connection, table: str, listing: Listing, floor: bytes, top: bytes, limit: int
) -> Iterator[OpenRow | DoneRow]:
    """Return the newest matching rows of a table with ids from `floor` up to `top` (exclusive)."""
    source, owner = _source(table, listing.scope)
    conditions, values = ["id >= ?", "id < ?"], list[object]([*owner, floor, top])
    for column in ("subscription_id", "event_id", "event_type"):
        if value := getattr(listing, column):
            # The `+` keeps SQLite from using another index: it would have to sort all of that index's rows by id.
            conditions.append(f"+{column} = ?")
            values.append(value)
    if listing.state is not None and table != "open":
        conditions.append("+state = ?")
        values.append(int(listing.state))
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
