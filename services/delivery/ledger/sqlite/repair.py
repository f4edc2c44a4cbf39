"""Repair: moves the ledger's cursors, and its rows and copies out of the way, after log and ledger did not fit together.

worker.repair → ledger → [repair]
"""

import sqlite3
from collections.abc import Iterable, Mapping

from services.delivery.ledger.protocol import RepairedCursor
from services.delivery.ledger.sqlite.flush_writer import LOG_ID, set_meta


def count_lost(connection: sqlite3.Connection, held_through: Mapping[int, int]) -> int:
    """See `Ledger.count_lost`."""
    query = (
        "SELECT count(*) FROM open WHERE partition = ? AND position > ? AND NOT EXISTS"
        " (SELECT 1 FROM payloads WHERE payloads.partition = open.partition AND payloads.position = open.position)"
    )
    return sum(connection.execute(query, place).fetchone()[0] for place in held_through.items())


def repair(connection: sqlite3.Connection, log_id: str, repaired: Iterable[RepairedCursor]) -> None:
    """See `Ledger.repair`."""
    set_meta(connection, LOG_ID, log_id)
    for cursor, held_through in repaired:
        partition = cursor.partition
        # Move the rows below all positions in use; a log's positions begin with 1.
        (lowest,) = connection.execute("SELECT min(position) FROM open WHERE partition = ?", (partition,)).fetchone()
        (lowest_copy,) = connection.execute("SELECT min(position) FROM payloads WHERE partition = ?", (partition,)).fetchone()
        (highest,) = connection.execute("SELECT max(position) FROM open WHERE partition = ?", (partition,)).fetchone()
        (highest_copy,) = connection.execute("SELECT max(position) FROM payloads WHERE partition = ?", (partition,)).fetchone()
        by = max(highest or 0, highest_copy or 0) - min(lowest or 0, lowest_copy or 0, 0) + 1
        for table in ("open", "payloads"):
            connection.execute(
                f"UPDATE {table} SET position = position - ? WHERE partition = ? AND position > ?",  # noqa: S608 - the table names are constants
                (by, partition, held_through),
            )
        connection.execute(
            "UPDATE cursors SET position = ?, event_id = ?, subscription_id = ? WHERE partition = ?",
            (cursor.position, cursor.event_id, cursor.through, partition),
        )
