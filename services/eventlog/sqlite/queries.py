"""Queries: the queries and small writes of the SQLite engine, as plain functions over a connection.

log → [queries] → SQLite

Positions, event ids and times of acceptance all grow with the rows. So a binary search finds a time or an event id, without an index
that would slow down every append.
"""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from services.eventlog.errors import PositionMismatchError
from services.eventlog.history import EventPage, EventQuery
from services.eventlog.protocol import BATCH_BYTES_MAX
from services.eventlog.record import Lag, Record, ResumePoint, ShardPosition, SlotProgress
from services.runtime.consumer_scope import Everyone
from services.runtime.ids import SLOTS, id_bytes, is_id
from services.runtime.listing_reader import Budget

SHARD = 0
"""A log in one file has one shard, and this is its number."""
_TRIM_ROWS = 1_000
RECORD = "partition, position, event_id, type, source, audience, accepted_ms, event"
# The limits of a listing: how many records it examines for one page before it returns those found, and how many in one statement.
_EXAMINED_MAX = 50_000
_EXAMINED_STEP = 2_000


def record_of(row: Sequence[object]) -> Record:
    """Return the record of a row in the order of `RECORD`."""
    partition, position, event_id, *rest = row
    return Record(SHARD, partition, position, "evt_" + event_id.hex(), *rest)  # type: ignore[arg-type, attr-defined]  # the columns' types


def records_after(connection: sqlite3.Connection, position: int, records_max: int) -> list[Record]:
    """Return the records after a position, bounded in count and bytes (at least one record, if there is any)."""
    rows = connection.execute(f"SELECT {RECORD} FROM events WHERE position > ? ORDER BY position LIMIT ?", (position, records_max))  # noqa: S608 - a constant
    records, size = list[Record](), 0
    for row in rows:
        records.append(record_of(row))
        size += len(row[-1])
        if size >= BATCH_BYTES_MAX:
            break
    return records


def check_place(
    connection: sqlite3.Connection, after: ShardPosition, slots: Sequence[int] = (), *, begins_anew: bool = True
) -> tuple[int, int]:
    """Compare a resume point with the log; return the log's head, and the position after which reading resumes.

    Raises `PositionMismatchError` for a point beyond the head, with another event's id, or before what one of the slots has released. In
    the last case the reader was further once, so its own store is an older copy; but a reader that begins anew, and so names neither log
    nor event, may go back.
    """
    head, trimmed_to = _head(connection), _trimmed_to(connection)
    may_go_back = begins_anew and not (after.event_id or after.following_id)
    went_back = not may_go_back and after.position < _released(connection, slots, "max")
    if went_back or not _holds(connection, after, head, trimmed_to):
        raise PositionMismatchError([SHARD])
    return head, max(after.position, trimmed_to)


def _holds(connection: sqlite3.Connection, place: ShardPosition, head: int, trimmed_to: int) -> bool:
    """Return whether the log holds the records that a position names. A trimmed record cannot be compared and counts as held."""
    _, position, event_id, following_id = place
    if position > head or (following_id and _id_after(connection, position) != following_id):
        return False
    return not event_id or position <= trimmed_to or _id_at(connection, position) == event_id


def _id_at(connection: sqlite3.Connection, position: int) -> str | None:
    row = connection.execute("SELECT event_id FROM events WHERE position = ?", (position,)).fetchone()
    return None if row is None else "evt_" + row[0].hex()


def _id_after(connection: sqlite3.Connection, position: int) -> str | None:
    row = connection.execute("SELECT event_id FROM events WHERE position > ? ORDER BY position LIMIT 1", (position,)).fetchone()
    return None if row is None else "evt_" + row[0].hex()


def lag_behind(connection: sqlite3.Connection, routed: Iterable[ShardPosition], *, is_complete: bool) -> Lag:
    """Return how many events the log holds after the lowest of these positions; if they are not `is_complete`, after the released events.

    If the log does not hold the event of a position there, the log or the reader was restored from an older copy. Then the events with
    newer ids count.
    """
    positions = [_routed_to(connection, place) for place in routed]
    if not is_complete:
        positions.append(released_through(connection))
    query = "SELECT position, accepted_ms FROM events WHERE position > ? ORDER BY position LIMIT 1"
    oldest = connection.execute(query, (min(positions),)).fetchone()
    return Lag(0, None) if oldest is None else Lag(_head(connection) - oldest[0] + 1, oldest[1])


def _routed_to(connection: sqlite3.Connection, place: ShardPosition) -> int:
    is_trimmed = place.position <= _trimmed_to(connection)
    if is_trimmed or not is_id(place.event_id, "evt") or _id_at(connection, place.position) == place.event_id:
        return place.position
    event_id = id_bytes(place.event_id)
    return _first_position(connection, "event_id", lambda value: value > event_id) - 1  # type: ignore[operator]  # both are bytes


def records_at(
    connection: sqlite3.Connection, places: Sequence[ShardPosition], *, bytes_max: int | None = None
) -> tuple[list[Record], bool]:
    """Return the records at given positions that still exist, and whether all positions were read.

    With `bytes_max`, reading stops before the record that would exceed it; the first record is always returned.
    """
    records, size = list[Record](), 0
    for shard, position, *_ in places:
        row = connection.execute(f"SELECT {RECORD} FROM events WHERE position = ?", (position,)).fetchone()  # noqa: S608 - a constant
        if row is None or shard != SHARD:
            continue
        size += len(row[-1])
        if bytes_max is not None and size > bytes_max and records:
            return records, False
        records.append(record_of(row))
    return records, True


def record_by_id(connection: sqlite3.Connection, event_id: bytes) -> Record | None:
    """Return the record of an event id, found by a binary search, since ids and positions grow together."""
    position = _first_position(connection, "event_id", lambda value: value >= event_id)  # type: ignore[operator]  # both are bytes
    row = connection.execute(f"SELECT {RECORD} FROM events WHERE position = ?", (position,)).fetchone()  # noqa: S608 - a constant
    return record_of(row) if row is not None and row[2] == event_id else None


def newest_records(connection: sqlite3.Connection, query: EventQuery, budget: Budget | None = None) -> EventPage:
    """Return a page of the matching records; see `EventHistory.newest`. The next page begins below a position.

    A page examines a bounded number of records, and stops when the budget is spent.
    """
    top = _head(connection) + 1
    if query.before is not None:
        top = min(top, query.before)
    if query.end_ms is not None:
        top = min(top, first_position_at(connection, query.end_ms))
    bottom = first_position_at(connection, query.start_ms) if query.start_ms is not None else 0
    bottom = max(bottom, _trimmed_to(connection) + 1)
    examined_to = max(bottom, top - _EXAMINED_MAX)
    records, size = list[Record](), 0
    while top > examined_to:
        floor = max(examined_to, top - _EXAMINED_STEP)
        for row in _matching_between(connection, query, floor, top, query.limit - len(records)):
            size += len(row[-1])
            if size > BATCH_BYTES_MAX and records:
                return EventPage(records, records[-1].position)
            records.append(record_of(row))
        if len(records) == query.limit:
            return EventPage(records, records[-1].position)
        top = floor
        if budget is not None and budget.is_spent:
            break
    return EventPage(records, top if top > bottom else None)


def _matching_between(connection: sqlite3.Connection, query: EventQuery, floor: int, top: int, limit: int) -> sqlite3.Cursor:
    conditions, values = list[str](), list[object]([top, floor])
    for column in ("type", "source"):
        if value := getattr(query, column):
            conditions.append(f"AND {column} = ?")
            values.append(value)
    if not isinstance(query.scope, Everyone):
        conditions.append("AND audience IN ('', ?)")
        values.append(query.scope.consumer_id)
    # The index holds all filtered columns, so that the rows of other events are not read.
    index = "INDEXED BY events_by_filter" if conditions else ""
    return connection.execute(
        f"SELECT {RECORD} FROM events {index} WHERE position < ? AND position >= ? {' '.join(conditions)} ORDER BY position DESC LIMIT ?",  # noqa: S608 - constants
        (*values, limit),
    )


def first_position_at(connection: sqlite3.Connection, time_ms: int) -> int:
    """Return the position of the first record accepted at or after a time; head + 1 if there is no such record."""
    return _first_position(connection, "accepted_ms", lambda value: value >= time_ms)  # type: ignore[operator]  # both are numbers


def trim_some(connection: sqlite3.Connection, before_ms: int) -> int:
    """Delete a bounded number of released records that were accepted before a time; return how many were deleted."""
    last = min(first_position_at(connection, before_ms) - 1, released_through(connection))
    first = connection.execute("SELECT min(position) FROM events").fetchone()[0]
    if first is None or first > last:
        return 0
    last = min(last, first + _TRIM_ROWS - 1)
    dropped = connection.execute("DELETE FROM events WHERE position <= ?", (last,)).rowcount
    connection.execute("UPDATE meta SET value = ? WHERE name = 'trimmed_to'", (str(last),))
    return dropped


def store_released(connection: sqlite3.Connection, progress: Iterable[SlotProgress]) -> int:
    """Store how far slots are recorded and released; neither moves back. Return how many slots were given.

    Nothing of a slot is stored if the log does not hold the record at `recorded`, or if that place is before what is stored as recorded.
    """
    head, trimmed_to = _head(connection), _trimmed_to(connection)
    rows = [
        (slot, SHARD, each.recorded[0].position, min(each.released[0].position, each.recorded[0].position))
        for each in progress
        if _holds(connection, each.recorded[0], head, trimmed_to)
        for slot in each.slots or range(SLOTS)
    ]
    connection.executemany(
        "INSERT INTO progress VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET recorded = excluded.recorded, released = max(released, excluded.released) WHERE recorded <= excluded.recorded",
        rows,
    )
    return len(rows)


def rewind(connection: sqlite3.Connection, rewound: Iterable[SlotProgress]) -> int:
    """Take back what slots had recorded and released after these places; return how many slots were given."""
    rows = [(each.recorded[0].position, each.released[0].position, slot, SHARD) for each in rewound for slot in each.slots or range(SLOTS)]
    connection.executemany(
        "UPDATE progress SET recorded = min(recorded, ?), released = min(released, ?) WHERE slot = ? AND shard = ?", rows
    )
    return len(rows)


def resume_point(connection: sqlite3.Connection, after: str, slots: Sequence[int] = ()) -> ResumePoint:
    """Return where a reader of slots resumes after the event with an id ("": no event); see `EventReader.resume_points`."""
    bound = id_bytes(after) if after else b""
    above = _first_position(connection, "event_id", lambda value: value > bound)  # type: ignore[operator]  # both are bytes
    newest = "SELECT position, event_id FROM events WHERE position < ? ORDER BY position DESC LIMIT 1"
    found = connection.execute(newest, (above,)).fetchone()
    position = 0 if found is None else found[0]
    count = "SELECT count(*) FROM events WHERE position > ?"
    (following,) = connection.execute(count, (position,)).fetchone()
    (unreleased,) = connection.execute(count, (max(position, _released(connection, slots, "min")),)).fetchone()
    return ResumePoint(ShardPosition(SHARD, position, "" if found is None else "evt_" + found[1].hex()), following, unreleased)


def released_through(connection: sqlite3.Connection) -> int:
    """Return the last position that all slots have released."""
    return _released(connection, (), "min")


def _released(connection: sqlite3.Connection, slots: Sequence[int], bound: Literal["min", "max"]) -> int:
    """Return the lowest or highest position that one of the slots (empty: of all) has released. A slot that was never reported counts 0."""
    asked = set(slots or range(SLOTS))
    known: list[int] = [
        position for slot, position in connection.execute("SELECT slot, released FROM progress WHERE shard = ?", (SHARD,)) if slot in asked
    ]
    if len(known) < len(asked):
        known.append(0)
    return min(known) if bound == "min" else max(known)


def _first_position(connection: sqlite3.Connection, column: str, reached: Callable[[object], bool]) -> int:
    low = connection.execute("SELECT min(position) FROM events").fetchone()[0] or 1
    high = _head(connection) + 1
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            f"SELECT position, {column} FROM events WHERE position >= ? AND position < ? ORDER BY position LIMIT 1",  # noqa: S608 - two constants
            (middle, high),
        ).fetchone()
        if row is None or reached(row[1]):
            high = middle
        else:
            low = row[0] + 1
    row = connection.execute("SELECT position FROM events WHERE position >= ? ORDER BY position LIMIT 1", (low,)).fetchone()
    return row[0] if row is not None else _head(connection) + 1


def _head(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT max(position) FROM events").fetchone()[0] or _trimmed_to(connection)


def _trimmed_to(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE name = 'trimmed_to'").fetchone()[0])
