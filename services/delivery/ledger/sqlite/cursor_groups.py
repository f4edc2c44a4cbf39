"""Cursor groups: the places of a ledger in the log, and the slots that stand at each.

flush_writer, queries, repair, ledger → [cursor_groups]

Law: the first group stands lowest. Another group joins it once the first group has come that far, and is gone then.
"""

import json
import sqlite3
from collections.abc import Iterable

from services.delivery.errors import LedgerInvariantError
from services.delivery.ledger.protocol import FIRST_GROUP, GroupCursor, ShardCursor, rank


def group_cursors(connection: sqlite3.Connection) -> list[GroupCursor]:
    """Return the cursors of all groups, the first group first."""
    rows = connection.execute("SELECT group_id, positions, events, through FROM groups ORDER BY group_id")
    return [_cursor(*row) for row in rows]


def first_cursor(connection: sqlite3.Connection) -> GroupCursor:
    """Return the cursor of the first group."""
    row = connection.execute("SELECT group_id, positions, events, through FROM groups WHERE group_id = ?", (FIRST_GROUP,)).fetchone()
    return _cursor(*row)


def _cursor(group_id: int, *arrays: str) -> GroupCursor:
    shards = zip(*map(json.loads, arrays), strict=True)
    return GroupCursor(group_id, tuple(ShardCursor(shard, *each) for shard, each in enumerate(shards)))


def slots_of(connection: sqlite3.Connection, group_id: int) -> tuple[int, ...]:
    """Return the slots of a group, in order."""
    return tuple(slot for (slot,) in connection.execute("SELECT slot FROM slots WHERE group_id = ? ORDER BY slot", (group_id,)))


def write_cursors(connection: sqlite3.Connection, cursors: Iterable[GroupCursor]) -> None:
    """Move cursor groups in the shards that `cursors` names."""
    connection.executemany(
        "UPDATE groups SET positions = json_set(positions, ?1, ?2), events = json_set(events, ?1, ?3), through = json_set(through, ?1, ?4)"
        " WHERE group_id = ?5",
        [
            (f"$[{shard}]", position, event_id, through, group_id)
            for group_id, shards in cursors
            for shard, position, event_id, through in shards
        ],
    )


def join(connection: sqlite3.Connection, group_ids: Iterable[int]) -> None:
    """Let the slots of groups join the first group. Raises `LedgerInvariantError` if the first group has not come that far."""
    asked = set(group_ids)
    if not asked:
        return
    first = first_cursor(connection)
    for other in group_cursors(connection):
        if other.group_id not in asked:
            continue
        if any(rank(here) < rank(there) for here, there in zip(first.shards, other.shards, strict=True)):
            message = f"group {other.group_id} stands at {list(other.shards)} and cannot join the first group at {list(first.shards)}"
            raise LedgerInvariantError(message)
        dissolve(connection, other.group_id)


def dissolve(connection: sqlite3.Connection, group_id: int) -> None:
    """Give the slots of a group to the first group, and delete the group."""
    connection.execute("UPDATE slots SET group_id = ? WHERE group_id = ?", (FIRST_GROUP, group_id))
    connection.execute("DELETE FROM groups WHERE group_id = ?", (group_id,))
