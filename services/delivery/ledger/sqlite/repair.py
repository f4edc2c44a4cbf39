"""Repair: moves the ledger's cursors, and its rows and copies out of the way, after log and ledger did not fit together.

worker.repair → ledger → [repair]
"""

import sqlite3
from collections.abc import Mapping, Sequence

from services.delivery.ledger.protocol import GroupCursor, recorded_position
from services.delivery.ledger.sqlite import cursor_groups, ranges
from services.delivery.ledger.sqlite.flush_writer import LOG_ID, set_meta


def count_lost(connection: sqlite3.Connection, held_through: Mapping[int, int]) -> int:
    """See `Ledger.count_lost`."""
    query = (
        "SELECT count(*) FROM open WHERE shard = ? AND position > ? AND NOT EXISTS"
        " (SELECT 1 FROM payloads WHERE payloads.shard = open.shard AND payloads.position = open.position)"
    )
    return sum(connection.execute(query, place).fetchone()[0] for place in held_through.items())


def repair(connection: sqlite3.Connection, log_id: str, cursors: Sequence[GroupCursor], held_through: Mapping[int, int]) -> None:
    """See `Ledger.repair`."""
    set_meta(connection, LOG_ID, log_id)
    for shard, held in held_through.items():
        # Move the rows below all positions in use; a log's positions begin with 1.
        (lowest,) = connection.execute("SELECT min(position) FROM open WHERE shard = ?", (shard,)).fetchone()
        (lowest_copy,) = connection.execute("SELECT min(position) FROM payloads WHERE shard = ?", (shard,)).fetchone()
        (highest,) = connection.execute("SELECT max(position) FROM open WHERE shard = ?", (shard,)).fetchone()
        (highest_copy,) = connection.execute("SELECT max(position) FROM payloads WHERE shard = ?", (shard,)).fetchone()
        by = max(highest or 0, highest_copy or 0) - min(lowest or 0, lowest_copy or 0, 0) + 1
        for table in ("open", "payloads"):
            connection.execute(
                f"UPDATE {table} SET position = position - ? WHERE shard = ? AND position > ?",  # noqa: S608 - the table names are constants
                (by, shard, held),
            )
    cursor_groups.write_cursors(connection, cursors)
    named = {each.group_id for each in cursors}
    for group in cursor_groups.group_cursors(connection):
        if group.group_id not in named:
            cursor_groups.dissolve(connection, group.group_id)
    for group in cursors:
        recorded = {each.shard: (recorded_position(each).position, held_through[each.shard]) for each in group.shards}
        ranges.repair_ranges(connection, cursor_groups.slots_of(connection, group.group_id), recorded)
    ranges.repair_set_aside(connection, held_through)
