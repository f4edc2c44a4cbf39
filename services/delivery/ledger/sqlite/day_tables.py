"""Day tables: finished deliveries stand in one table for each day, so that a day that is kept no longer goes as a whole.

flush_writer, queries, retention, ledger → [day_tables]

Law 1: one template makes every table. `days` lists each table with the version of the template that it follows.
Law 2: before a ledger is used, all its tables follow the newest version: `migrate_days` brings each of them there in one transaction, so
that after a crash at any moment the next start goes on with the tables that are left.

A change of the template raises its version, and adds the statements that lead from the version before to the new one.
"""

import contextlib
import datetime as dt
import functools
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.runtime import failpoints
from services.runtime.database import connect, explained, written_by_newer
from services.runtime.logs import logger


@dataclass(frozen=True, slots=True)
class DayTemplate:
    """How a day's table is made. In all statements `{table}` stands for the table's name."""

    version: int
    """From 1 on."""
    create: tuple[str, ...]
    """The statements that make a table of this version."""
    upgrades: Mapping[int, tuple[str, ...]]
    """For each older version, the statements that bring a table of it to the next version."""


TEMPLATE = DayTemplate(
    version=1,
    create=(
        """
        CREATE TABLE {table} (
            id BLOB PRIMARY KEY,
            event_id TEXT NOT NULL,
            shard INTEGER NOT NULL,
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
            finished_ms INTEGER NOT NULL,
            job_id TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX {table}_by_consumer ON {table} (consumer_id, id)",
    ),
    upgrades={},
)


@functools.lru_cache(maxsize=64)
def _day_name(day: int) -> str:
    return dt.datetime.fromtimestamp(day * 86400, tz=dt.UTC).strftime("%Y%m%d")


def day_of(time_ms: int) -> str:
    """Return the day (UTC) of a time in ms since 1970, as YYYYMMDD."""
    return _day_name(time_ms // 86_400_000)


def table_of(day: str) -> str:
    """Return the name of a day's table."""
    return f"done_{day}"


def stored_days(connection: sqlite3.Connection) -> list[str]:
    """Return the days that have a table, the newest first, each as YYYYMMDD."""
    return [day for (day,) in connection.execute("SELECT day FROM days ORDER BY day DESC")]


def create_day(connection: sqlite3.Connection, day: str) -> None:
    """Create the table of a day unless it exists, within the transaction of a connection."""
    if connection.execute("SELECT 1 FROM days WHERE day = ?", (day,)).fetchone() is None:
        _execute(connection, TEMPLATE.create, day)
        connection.execute("INSERT INTO days VALUES (?, ?)", (day, TEMPLATE.version))


def drop_day(connection: sqlite3.Connection, day: str) -> None:
    """Drop the table of a day, within the transaction of a connection."""
    connection.execute(f"DROP TABLE {table_of(day)}")
    connection.execute("DELETE FROM days WHERE day = ?", (day,))


def migrate_days(path: Path) -> None:
    """Bring all tables to the template's version. Raises `StartError` if a table is newer, or the file cannot be written."""
    with explained(path), contextlib.closing(connect(path)) as connection:
        (newest,) = connection.execute("SELECT coalesce(max(version), 0) FROM days").fetchone()
        if newest > TEMPLATE.version:
            raise written_by_newer(path)
        older = connection.execute("SELECT day, version FROM days WHERE version < ? ORDER BY day", (TEMPLATE.version,)).fetchall()
        for day, version in older:
            _migrate_day(connection, day, version)
            # A day of millions of rows may take a while, and the service is not ready meanwhile.
            logger().info("ledger.day_migrated", day=day, version=TEMPLATE.version)


def _migrate_day(connection: sqlite3.Connection, day: str, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version, TEMPLATE.version):
            _execute(connection, TEMPLATE.upgrades[step], day)
        connection.execute("UPDATE days SET version = ? WHERE day = ?", (TEMPLATE.version, day))
        failpoints.reached("ledger.before_commit")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    failpoints.reached("ledger.after_commit")


def _execute(connection: sqlite3.Connection, statements: tuple[str, ...], day: str) -> None:
    for statement in statements:
        connection.execute(statement.format(table=table_of(day)))
