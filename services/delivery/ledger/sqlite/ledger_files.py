"""Ledger files: where the files of several workers are, and when a file without an owner is removed.

ledger, ledger_cut → [ledger_files]

A file that has lost its slots in a cut is a former file. It has only finished deliveries, and is removed with its last day.
"""

import contextlib
import json
import sqlite3
from pathlib import Path

from services.delivery.ledger.ledger_map import ONE_WORKER, LedgerMap, slots_of
from services.delivery.ledger.sqlite import retention
from services.delivery.ledger.sqlite.day_tables import stored_days
from services.runtime.database import connect, explained, peek, sole_owner
from services.runtime.database_files import lock_file
from services.runtime.ids import WORKERS_MAX
from services.runtime.logs import logger
from services.runtime.service_process import StartError

MAP = "map"
"""The name of the map in `meta` of the first file."""


def ledger_file(database: Path, number: int) -> Path:
    """Return a worker's ledger file: the database itself for worker 0, and files beside it for the others."""
    return database if number == 0 else database.with_name(f"{database.stem}-{number}{database.suffix}")


def numbers_there(database: Path) -> set[int]:
    """Return the numbers of the ledger files that are there."""
    return {number for number in range(WORKERS_MAX) if ledger_file(database, number).exists()}


def stored_map(database: Path) -> LedgerMap:
    """Return the map in a ledger file."""
    with contextlib.closing(connect(database)) as connection:
        row = connection.execute("SELECT value FROM meta WHERE name = ?", (MAP,)).fetchone()
    return ONE_WORKER if row is None else LedgerMap(*json.loads(row[0]))


def peeked_map(database: Path) -> LedgerMap | None:
    """Return the map in a file; None if the file has no map or cannot be read. The file is not changed.

    An unreadable file raises no error here, because the service reports it when it opens the file.
    """
    try:
        rows = peek(database, "SELECT value FROM meta WHERE name = ?", MAP)
    except sqlite3.Error:
        return None
    return LedgerMap(*json.loads(rows[0][0])) if rows else None


def former_files(database: Path, ledgers: LedgerMap) -> list[Path]:
    """Return the files beside a database that no worker owns."""
    return [ledger_file(database, number) for number in sorted(numbers_there(database)) if number >= ledgers.workers]


def owned_file(database: Path, number: int, workers: int) -> Path:
    """Return the ledger file of one of several workers.

    Raises `StartError` if the file does not have the worker's slots, as the start of all workers has left it. A worker that is started
    again alone would else begin with an empty ledger after somebody removed the file.
    """
    path, slots = ledger_file(database, number), set[int]()
    if path.exists():
        with explained(path), contextlib.closing(connect(path)) as connection:
            slots = {slot for (slot,) in connection.execute("SELECT slot FROM slots")}
    if slots != set(slots_of(number, workers)):
        message = f"{path} was removed or replaced while its service ran; put it back, or start the delivery service again"
        raise StartError(message)
    return path


def trim_former(path: Path, before_day: str) -> int:
    """Drop a former file's finished deliveries of days before `before_day` (YYYYMMDD). Remove the file if no day is left.

    Return how many were dropped. A file that another process has open stays as it is.
    """
    dropped = 0
    with contextlib.suppress(StartError), sole_owner(path):
        with contextlib.closing(connect(path)) as connection:
            while (some := _drop_some(connection, before_day)) is not None:
                dropped += some
            has_days = bool(stored_days(connection))
        if not has_days:
            remove_ledger(path)
            logger().info("ledger.former_file_removed", file=path.name)
    return dropped


def _drop_some(connection: sqlite3.Connection, before_day: str) -> int | None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        some = retention.drop_days(connection, before_day)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return some


def days_in(path: Path) -> list[str]:
    """Return the days with finished deliveries in a ledger file, the newest first."""
    with contextlib.closing(connect(path)) as connection:
        return stored_days(connection)


def remove_ledger(path: Path) -> None:
    """Remove a ledger file whose lock is held, with its write-ahead log and its lock file."""
    for left in (path, *(path.with_name(f"{path.name}-{end}") for end in ("wal", "shm")), lock_file(path)):
        left.unlink(missing_ok=True)
