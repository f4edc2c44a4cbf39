"""Day tables: finished deliveries stand in one table for each day, so that a day that is kept no longer goes as a whole.

flush_writer, queries, retention → [day_tables]
"""

import datetime as dt
import functools
import sqlite3


@functools.lru_cache(maxsize=64)
def _day_name(day: int) -> str:
    return dt.datetime.fromtimestamp(day * 86400, tz=dt.UTC).strftime("%Y%m%d")


def day_of(time_ms: int) -> str:
    """Return the day (UTC) of a time in ms since 1970, as YYYYMMDD."""
    return _day_name(time_ms // 86_400_000)


def day_tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables of finished deliveries, the newest day first."""
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'done_[0-9]*' ORDER BY name DESC")
    return [row[0] for row in rows]


def create_day(connection: sqlite3.Connection, day: str) -> None:
    """Create the table of a day unless it exists."""
    connection.execute(
        f"""
        CREATE TABLE IF NOT EXISTS done_{day} (
            id BLOB PRIMARY KEY,
            event_id TEXT NOT NULL,
            partition INTEGER NOT NULL,
            position INTEGER NOT NULL,
            subscription_id TEXT NOT NULL,
            consumer_id TEXT NOT NULL,
            event_type TEXT NOT NULL,
            accepted_ms INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            state INTEGER NOT NULL,
            attempt_count INTEGER NOT NULL,
            attempts BLOB NOT NULL,
            last_status INTEGER NOT NULL,
            finished_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    connection.execute(f"CREATE INDEX IF NOT EXISTS done_{day}_by_consumer ON done_{day} (consumer_id, id)")
