"""Queries: the queries and small writes of the SQLite engine, as plain functions over a connection.

log → [queries] → SQLite

Positions, event ids and times of acceptance all grow with the rows. So a binary search finds a time or an event id, without an index
that would slow down every append.
"""

import sqlite3
from collections.abc import Callable, Sequence

from services.eventlog.errors import PositionMismatchError
from services.eventlog.history import EventPage, EventQuery
from services.eventlog.protocol import BATCH_BYTES_MAX
from services.eventlog.record import PARTITIONS, Lag, Place, Record, ResumePoint
from services.runtime.consumer_scope import Everyone
from services.runtime.ids import id_bytes, is_id
from services.runtime.listing_reader import Budget

_TRIM_ROWS = 1_000
_RECORD = "partition, position, event_id, type, source, audience, accepted_ms, event"
# The limits of a listing: how many records it examines for one page before it returns those found, and how many in one statement.
_EXAMINED_MAX = 50_000
_EXAMINED_STEP = 2_000


def record_of(row: Sequence[object]) -> Record:
    """Return the record of a row in the order of `_RECORD`."""
    partition, position, event_id, *rest = row
    return Record(partition, position, "evt_" + event_id.hex(), *rest)  # type: ignore[arg-type, attr-defined]  # the columns' types


def records_after(connection: sqlite3.Connection, position: int, records_max: int) -> list[Record]:
    """Return the records of all partitions after a position, bounded in count and bytes (at least one record, if there is any)."""
    rows = connection.execute(f"SELECT {_RECORD} FROM events WHERE position > ? ORDER BY position LIMIT ?", (position, records_max))  # noqa: S608 - a constant
    records, size = list[Record](), 0
    for row in rows:
        records.append(record_of(row))
        size += len(row[-1])
        if size >= BATCH_BYTES_MAX:
            break
    return records


def check_places(connection: sqlite3.Connection, after: Sequence[Place], *, begins_anew: bool = True) -> tuple[dict[int, int], int]:
    """Compare resume points with the log; return each partition's head, and the position after which reading resumes.

    Raises `PositionMismatchError` for a point beyond the head of the log, with another event's id, or before what its reader has
    released. In the last case the reader was further once, so its own store is an older copy; but a reader that begins anew, and so names
    neither log nor event, may go back.
    """
    heads: dict[int, int] = {}
    starts: list[int] = []
    wrong: list[int] = []
    head_of_all = _head(connection)
    trimmed_to = _trimmed_to(connection)
    released = _released(connection)
    for place in after:
        partition, position, event_id, following_id = place
        (newest,) = connection.execute("SELECT max(position) FROM events WHERE partition = ?", (partition,)).fetchone()
        heads[partition] = newest or 0
        went_back = (not begins_anew or bool(event_id or following_id)) and position < released.get(partition, 0)
        if went_back or not _holds(connection, place, head_of_all, trimmed_to):
            wrong.append(partition)
            continue
        (following,) = connection.execute(
            "SELECT min(position) FROM events WHERE partition = ? AND position > ?", (partition, position)
        ).fetchone()
        starts.append(head_of_all if following is None else following - 1)
    if wrong:
        raise PositionMismatchError(wrong)
    return heads, min(starts, default=head_of_all)


def _holds(connection: sqlite3.Connection, place: Place, head: int, trimmed_to: int) -> bool:
    """Return whether the log holds the records that a place names. A trimmed record cannot be compared and counts as held."""
    partition, position, event_id, following_id = place
    if position > head or (following_id and _id_at(connection, partition, position + 1) != following_id):
        return False
    return not event_id or position <= trimmed_to or _id_at(connection, partition, position) == event_id


def _id_at(connection: sqlite3.Connection, partition: int, position: int) -> str | None:
    row = connection.execute("SELECT event_id FROM events WHERE position = ? AND partition = ?", (position, partition)).fetchone()
    return None if row is None else "evt_" + row[0].hex()


def lag_behind(connection: sqlite3.Connection, routed: Sequence[Place] | None) -> Lag:
    """Return how many events the log holds after the last routed event of each partition; `routed` None: after the released events.

    If the log does not hold that event at its place, the log or the reader was restored from an older copy. Then the events with newer
    ids count.
    """
    places = [Place(*each) for each in _released(connection).items()] if routed is None else routed
    positions = dict.fromkeys(range(PARTITIONS), 0) | {place.partition: _routed_to(connection, place) for place in places}
    query = "SELECT min(position) FROM events WHERE partition = ? AND position > ?"
    oldest = min(
        (found for each in positions.items() if (found := connection.execute(query, each).fetchone()[0]) is not None), default=None
    )
    if oldest is None:
        return Lag(0, None)
    (accepted_ms,) = connection.execute("SELECT accepted_ms FROM events WHERE position = ?", (oldest,)).fetchone()
    return Lag(_head(connection) - oldest + 1, accepted_ms)


def _routed_to(connection: sqlite3.Connection, place: Place) -> int:
    is_trimmed = place.position <= _trimmed_to(connection)
    if is_trimmed or not is_id(place.event_id, "evt") or _id_at(connection, place.partition, place.position) == place.event_id:
        return place.position
    event_id = id_bytes(place.event_id)
    return _first_position(connection, "event_id", lambda value: value > event_id) - 1  # type: ignore[operator]  # both are bytes


def records_at(connection: sqlite3.Connection, places: Sequence[Place], *, bytes_max: int | None = None) -> tuple[list[Record], bool]:
    """Return the records at given places that still exist, and whether all places were read.

    With `bytes_max`, reading stops before the record that would exceed it; the first record is always returned.
    """
    records, size = list[Record](), 0
    for partition, position, *_ in places:
        row = connection.execute(f"SELECT {_RECORD} FROM events WHERE position = ?", (position,)).fetchone()  # noqa: S608 - a constant
        if row is None or row[0] != partition:
            continue
        size += len(row[-1])
        if bytes_max is not None and size > bytes_max and records:
            return records, False
        records.append(record_of(row))
    return records, True


def record_by_id(connection: sqlite3.Connection, event_id: bytes) -> Record | None:
    """Return the record of an event id, found by a binary search, since ids and positions grow together."""
    position = _first_position(connection, "event_id", lambda value: value >= event_id)  # type: ignore[operator]  # both are bytes
    row = connection.execute(f"SELECT {_RECORD} FROM events WHERE position = ?", (position,)).fetchone()  # noqa: S608 - a constant
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
    conditions, values = ["position < ?", "position >= ?"], list[object]([top, floor])
    for column in ("type", "source"):
        if value := getattr(query, column):
            # The `+` keeps SQLite from the index over source and id, whose rows it would have to sort.
            conditions.append(f"+{column} = ?")
            values.append(value)
    if not isinstance(query.scope, Everyone):
        conditions.append("audience IN ('', ?)")
        values.append(query.scope.consumer_id)
    return connection.execute(
        f"SELECT {_RECORD} FROM events WHERE {' AND '.join(conditions)} ORDER BY position DESC LIMIT ?",  # noqa: S608 - constants
        (*values, limit),
    )


def first_position_at(connection: sqlite3.Connection, time_ms: int) -> int:
    """Return the position of the first record accepted at or after a time; head + 1 if there is no such record."""
    return _first_position(connection, "accepted_ms", lambda value: value >= time_ms)  # type: ignore[operator]  # both are numbers


def trim_some(connection: sqlite3.Connection, before_ms: int) -> int:
    """Delete a bounded number of released records that were accepted before a time; return how many were deleted."""
    last = min(first_position_at(connection, before_ms) - 1, _released_through(connection))
    first = connection.execute("SELECT min(position) FROM events").fetchone()[0]
    if first is None or first > last:
        return 0
    last = min(last, first + _TRIM_ROWS - 1)
    dropped = connection.execute("DELETE FROM events WHERE position <= ?", (last,)).rowcount
    connection.execute("UPDATE meta SET value = ? WHERE name = 'trimmed_to'", (str(last),))
    return dropped


def store_released(connection: sqlite3.Connection, released: Sequence[Place], recorded: Sequence[Place] = ()) -> int:
    """Store the position up to which each partition is released. A release never moves it back, and never beyond the head of the log.

    If the log does not hold a partition's record at `recorded`, that partition is left out. Returns the number of partitions stored.
    """
    head, trimmed_to = _head(connection), _trimmed_to(connection)
    foreign = {place.partition for place in recorded if not _holds(connection, place, head, trimmed_to)}
    stored = [(place.partition, min(place.position, head)) for place in released if place.partition not in foreign]
    connection.executemany(
        "INSERT INTO released VALUES (?, ?) ON CONFLICT DO UPDATE SET position = max(position, excluded.position)", stored
    )
    return len(stored)


def rewind(connection: sqlite3.Connection, places: Sequence[Place]) -> int:
    """Undo the release of records after these places; return the number of places."""
    connection.executemany(
        "UPDATE released SET position = min(position, ?) WHERE partition = ?", [(place.position, place.partition) for place in places]
    )
    return len(places)


def resume_points(connection: sqlite3.Connection, after: Sequence[Place]) -> list[ResumePoint]:
    """Return where a reader resumes after the events with these ids; see `EventLogReader.resume_points`."""
    released, points = _released(connection), []
    newest = "SELECT position, event_id FROM events WHERE partition = ? AND position < ? ORDER BY position DESC LIMIT 1"
    count = "SELECT count(*) FROM events WHERE partition = ? AND position > ?"
    for partition, _, event_id, _ in after:
        bound = id_bytes(event_id) if event_id else b""
        above = _first_position(connection, "event_id", lambda value, bound=bound: value > bound)  # type: ignore[misc]  # both are bytes
        found = connection.execute(newest, (partition, above)).fetchone()
        place = Place(partition, 0) if found is None else Place(partition, found[0], "evt_" + found[1].hex())
        (following,) = connection.execute(count, (partition, place.position)).fetchone()
        (unreleased,) = connection.execute(count, (partition, max(place.position, released.get(partition, 0)))).fetchone()
        points.append(ResumePoint(place, following, unreleased))
    return points


def _released_through(connection: sqlite3.Connection) -> int:
    """Return the last position up to which the records of all partitions are released."""
    released = _released(connection)
    bounds = []
    for partition in range(PARTITIONS):
        (needed,) = connection.execute(
            "SELECT min(position) FROM events WHERE partition = ? AND position > ?", (partition, released.get(partition, 0))
        ).fetchone()
        if needed is not None:
            bounds.append(needed - 1)
    return min(bounds, default=_head(connection))


def _released(connection: sqlite3.Connection) -> dict[int, int]:
    """Return, for each partition, the position up to which its reader has released the records."""
    return dict(connection.execute("SELECT partition, position FROM released").fetchall())


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
