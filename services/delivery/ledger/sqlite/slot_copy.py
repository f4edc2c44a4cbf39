"""Slot copy: copies the slots of one ledger file into another, and deletes the slots that a file does not own.

ledger_cut → [slot_copy: ledger_map, cursor_groups]

Law 1: each function works within the transaction of its caller, and may be repeated.
Law 2: each delivery waits as long as it would have waited in the file that it comes from.
Law 3: finished deliveries stay where they are.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence

from services.delivery.ledger.ledger_map import arranged
from services.delivery.ledger.protocol import FIRST_GROUP
from services.delivery.ledger.rows import OPEN_COLUMNS, LaneRow
from services.delivery.ledger.sqlite.cursor_groups import group_cursors, slots_of
from services.delivery.ledger.sqlite.flush_writer import CLOCK_JUMPED, LOG_ID, ROUTING_NOTE, WRITTEN, set_meta

SOURCE = "source"
"""The name under which the file to copy from is attached."""
_BY_SUBSCRIPTION = ("owed", "jobs", "ended", "lanes")
_DUE_TIMES = {"opens_until_ms", "retry_after_ms", "failing_since_ms"}
# The last two digits of a subscription's id are its slot.
_IN_SLOTS = "substr(subscription_id, -2) BETWEEN printf('%02x', :first) AND printf('%02x', :last)"


def delete_slots(connection: sqlite3.Connection, owned: range) -> None:
    """Delete everything about slots that are not `owned`, except finished deliveries and copies of events.

    If no slots are owned, also delete the copies, the events set aside, and what the file knows of its log and its clock. Otherwise a
    worker that gets the file later could take old events for those that another log has at their positions.
    """
    bounds = {"first": owned.start, "last": owned.stop - 1}
    if not owned:
        for table in ("open", *_BY_SUBSCRIPTION, "slots", "payloads", "set_aside"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
        connection.executemany("DELETE FROM meta WHERE name = ?", [(name,) for name in (LOG_ID, CLOCK_JUMPED, WRITTEN, ROUTING_NOTE)])
    else:
        connection.execute("DELETE FROM open WHERE slot NOT BETWEEN :first AND :last", bounds)
        for table in _BY_SUBSCRIPTION:
            connection.execute(f"DELETE FROM {table} WHERE NOT ({_IN_SLOTS})", bounds)  # noqa: S608 - constants
        connection.execute("DELETE FROM slots WHERE slot NOT BETWEEN :first AND :last", bounds)
    connection.execute("DELETE FROM groups WHERE group_id != ? AND group_id NOT IN (SELECT group_id FROM slots)", (FIRST_GROUP,))


def arrange_groups(connection: sqlite3.Connection) -> None:
    """Give the groups of a file their numbers: the lowest is the first group, and no two stand at one place."""
    groups = [(cursor, slots_of(connection, cursor.group_id)) for cursor in group_cursors(connection)]
    wanted = arranged(groups)
    if not wanted or wanted == [(cursor, list(slots)) for cursor, slots in groups]:
        return
    connection.execute("DELETE FROM slots")
    connection.execute("DELETE FROM groups")
    for cursor, slots in wanted:
        _, *arrays = map(json.dumps, zip(*cursor.shards, strict=True))
        connection.execute("INSERT INTO groups VALUES (?, ?, ?, ?)", (cursor.group_id, *arrays))
        connection.executemany("INSERT INTO slots VALUES (?, ?)", [(slot, cursor.group_id) for slot in slots])
    # The lowest place may be another one now, so what the note says of starts at the former one no longer holds.
    connection.execute("DELETE FROM meta WHERE name = ?", (ROUTING_NOTE,))


def copy_slots(connection: sqlite3.Connection, slots: range, now_ms: int) -> None:
    """Copy slots from the attached file, which owns them, into a file that has none of them; `now_ms` is the wall clock's time."""
    later_ms = _copy_state(connection, now_ms)
    lower = _positions_below(connection)
    bounds = {"first": slots.start, "last": slots.stop - 1, "later_ms": later_ms, "lower": lower}
    _copy_groups(connection, bounds)
    changed = {"due_ms": _later("due_ms"), "position": _moved("position")}
    columns = ", ".join(changed.get(column, column) for column in OPEN_COLUMNS)
    connection.execute(
        f"INSERT INTO open ({', '.join(OPEN_COLUMNS)}) SELECT {columns} FROM {SOURCE}.open WHERE slot BETWEEN :first AND :last",  # noqa: S608 - constants
        bounds,
    )
    for table in _BY_SUBSCRIPTION:
        columns = "*"
        if table == "lanes":
            columns = ", ".join(_later(each) if each in _DUE_TIMES else each for each in LaneRow._fields)
        connection.execute(f"INSERT INTO {table} SELECT {columns} FROM {SOURCE}.{table} WHERE {_IN_SLOTS}", bounds)  # noqa: S608 - constants
    connection.execute(
        f"INSERT OR IGNORE INTO payloads SELECT shard, {_moved('position')}, record FROM {SOURCE}.payloads AS copies WHERE EXISTS"  # noqa: S608 - constants
        f" (SELECT 1 FROM {SOURCE}.open AS waiting WHERE waiting.shard = copies.shard AND waiting.position = copies.position"
        " AND waiting.slot BETWEEN :first AND :last)",
        bounds,
    )
    connection.execute(f"INSERT OR IGNORE INTO set_aside SELECT * FROM {SOURCE}.set_aside")  # noqa: S608 - a constant


def copy_outbox(connection: sqlite3.Connection) -> None:
    """Copy the notices of the attached file, which no worker will own."""
    connection.execute(f"INSERT OR REPLACE INTO outbox SELECT * FROM {SOURCE}.outbox")  # noqa: S608 - a constant


def _later(column: str) -> str:
    """Return the SQL that converts a due time to this file's clock. 0 stays 0, because it means no due time."""
    return f"CASE {column} WHEN 0 THEN 0 ELSE max(1, {column} + :later_ms) END"


def _moved(column: str) -> str:
    """Return the SQL that moves a negative position below all positions of this file. The log holds no event at such a position."""
    return f"CASE WHEN {column} < 0 THEN {column} + :lower ELSE {column} END"


def _copy_state(connection: sqlite3.Connection, now_ms: int) -> int:
    """Take over the log's identity, and the clock if this file has none; return how many ms to add to due times for this clock."""
    here = dict(connection.execute("SELECT name, value FROM main.meta"))
    there = dict(connection.execute(f"SELECT name, value FROM {SOURCE}.meta"))  # noqa: S608 - a constant
    if not here.get(LOG_ID) and there.get(LOG_ID):
        set_meta(connection, LOG_ID, there[LOG_ID])
    if not int(here.get(WRITTEN, 0)):  # it has no due times
        for name in (CLOCK_JUMPED, WRITTEN):
            set_meta(connection, name, there.get(name, "0"))
        return 0
    return _time_in(here, now_ms) - _time_in(there, now_ms)


def _time_in(meta: Mapping[str, str], now_ms: int) -> int:
    """Return the present time by a file's clock, as a worker that starts now would read it."""
    return max(now_ms - int(meta.get(CLOCK_JUMPED, 0)), int(meta.get(WRITTEN, 0)))


def _positions_below(connection: sqlite3.Connection) -> int:
    """Return the lowest position of this file, at most 0.

    Each file has negative positions of its own: a repair gives them to rows whose events are gone from the log.
    """
    lowest = "SELECT min(position) FROM (SELECT position FROM main.open UNION ALL SELECT position FROM main.payloads UNION ALL SELECT 0)"
    return int(connection.execute(lowest).fetchone()[0])


def _copy_groups(connection: sqlite3.Connection, bounds: dict[str, int]) -> None:
    (above,) = connection.execute("SELECT max(group_id) FROM main.groups").fetchone()
    rows: Sequence[tuple[int, int]] = connection.execute(
        f"SELECT slot, group_id FROM {SOURCE}.slots WHERE slot BETWEEN :first AND :last",  # noqa: S608 - a constant
        bounds,
    ).fetchall()
    for group_id in sorted({group_id for _, group_id in rows}):
        connection.execute(
            f"INSERT INTO groups SELECT group_id + ?, positions, events, through FROM {SOURCE}.groups WHERE group_id = ?",  # noqa: S608 - a constant
            (above, group_id),
        )
    connection.executemany("INSERT INTO slots VALUES (?, ?)", [(slot, group_id + above) for slot, group_id in rows])
