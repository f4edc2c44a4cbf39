"""Lane tables: what lanes keep over a restart, how many rows they have, and the outbox of notices.

flush_writer, ledger → [lane_tables]
"""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import starmap

from services.delivery.ledger.protocol import WaitingCount
from services.delivery.ledger.rows import OPEN_COLUMNS, LaneRow, NoticeRow, OpenRow, WaitingRow


def write_lanes(connection: sqlite3.Connection, rows: Sequence[LaneRow]) -> None:
    """Insert or replace lanes."""
    connection.executemany("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def delete_lanes(connection: sqlite3.Connection, subscription_ids: Iterable[str]) -> None:
    """Delete lanes."""
    connection.executemany("DELETE FROM lanes WHERE subscription_id = ?", [(each,) for each in subscription_ids])


def lane_rows(connection: sqlite3.Connection) -> list[LaneRow]:
    """See `Ledger.lane_rows`."""
    return list(starmap(LaneRow, connection.execute("SELECT * FROM lanes ORDER BY subscription_id")))


def waiting_counts(connection: sqlite3.Connection) -> list[WaitingCount]:
    """See `Ledger.waiting_counts`. A delivery that was never attempted is due at 0."""
    rows = connection.execute(
        "SELECT subscription_id, sum(due_ms = 0), sum(due_ms != 0),"
        " CASE WHEN min(nullif(failed_sink, 0)) = max(failed_sink) THEN max(failed_sink) ELSE 0 END"
        " FROM open GROUP BY subscription_id"
    )
    return list(starmap(WaitingCount, rows))


def ordered_rows(connection: sqlite3.Connection, subscription_id: str) -> list[WaitingRow]:
    """See `Ledger.ordered_rows`."""
    query = "SELECT id, order_key, position, due_ms FROM open WHERE subscription_id = ? ORDER BY position"
    return list(starmap(WaitingRow, connection.execute(query, (subscription_id,))))


def open_rows(connection: sqlite3.Connection, ids: Sequence[bytes]) -> list[OpenRow]:
    """See `Ledger.open_rows`."""
    marks = ", ".join("?" * len(ids))
    query = f"SELECT {', '.join(OPEN_COLUMNS)} FROM open WHERE id IN ({marks}) ORDER BY position"  # noqa: S608 - constants and marks
    return list(starmap(OpenRow, connection.execute(query, tuple(ids))))


def write_notices(connection: sqlite3.Connection, notices: Sequence[NoticeRow]) -> None:
    """Insert or replace notices of the outbox."""
    connection.executemany("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?)", notices)


def forget_notices(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """See `Ledger.forget_notices`."""
    connection.executemany("DELETE FROM outbox WHERE id = ?", [(each,) for each in ids])


def outbox_page(connection: sqlite3.Connection, limit: int) -> list[NoticeRow]:
    """See `Ledger.outbox_page`."""
    return list(starmap(NoticeRow, connection.execute("SELECT * FROM outbox ORDER BY created_ms, id LIMIT ?", (limit,))))


def outbox_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """See `Ledger.outbox_counts`."""
    return dict(connection.execute("SELECT consumer_id, count(*) FROM outbox GROUP BY consumer_id").fetchall())
