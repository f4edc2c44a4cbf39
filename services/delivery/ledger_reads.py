"""Ledger reads: the ledger's queries, as plain functions over a connection."""

import contextlib
import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.delivery.ledger_rows import DONE_COLUMNS, OPEN_COLUMNS, DoneRow, OpenRow
from services.delivery.model import State
from services.eventlog.record import Place

_OPEN = ", ".join(OPEN_COLUMNS)
_DONE = ", ".join(DONE_COLUMNS)


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


def newest(connection: sqlite3.Connection, wanted: Wanted) -> list[OpenRow | DoneRow]:
    """Return deliveries that `wanted` describes, the newest event first."""
    found: list[OpenRow | DoneRow] = []
    conditions, values = _conditions(wanted)
    order = f"{conditions} ORDER BY id DESC LIMIT ?"
    with _snapshot(connection):
        if wanted.state in {None, State.PENDING}:
            rows = connection.execute(f"SELECT {_OPEN} FROM open {order}", (*values, wanted.limit))  # noqa: S608 - constants
            found += [OpenRow(*row) for row in rows]
        if wanted.state is not State.PENDING:
            finished = f"{conditions} AND state = ?" if wanted.state is not None else conditions
            state = () if wanted.state is None else (int(wanted.state),)
            for table in day_tables(connection):
                rows = connection.execute(
                    f"SELECT {_DONE} FROM {table} {finished} ORDER BY id DESC LIMIT ?",  # noqa: S608 - constants and a table of ours
                    (*values, *state, wanted.limit),
                )
                found += [DoneRow(*row) for row in rows]
    return heapq.nlargest(wanted.limit, found, key=lambda row: row.id)


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


def _conditions(wanted: Wanted) -> tuple[str, list[object]]:
    conditions, values = ["1 = 1"], list[object]()
    for column in ("consumer_id", "subscription_id", "event_id", "event_type"):
        if value := getattr(wanted, column):
            conditions.append(f"{column} = ?")
            values.append(value)
    if wanted.before_id is not None:
        conditions.append("id < ?")
        values.append(wanted.before_id)
    # Ids begin with the event's time in 48 bits of milliseconds.
    for bound, comparison in ((wanted.start_ms, ">="), (wanted.end_ms, "<")):
        if bound is not None:
            conditions.append(f"id {comparison} ?")
            values.append(max(0, min(bound, (1 << 48) - 1)).to_bytes(6, "big"))
    return "WHERE " + " AND ".join(conditions), values
