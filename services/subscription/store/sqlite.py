"""SQLite: everything that the registry's store knows of its database engine. Another engine answers the same calls.

startup_checks, store → [sqlite] → runtime/database
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import sqlalchemy as sa

from services.runtime.configuration.settings import SubscriptionSettings
from services.runtime.database import connect, database_path, explained, migrate, open_engine, sole_owner
from services.runtime.database_files import DatabaseFiles
from services.runtime.database_layout import refuse_other_layout

MIGRATIONS = Path(__file__).parents[1] / "migrations"

# SQLite's INTEGER has 64 bits; other databases call such a type BIGINT.
INTEGER_64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_PRIMARY_CODE = 0xFF
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


class ErrorKind(Enum):
    """What an error of the database means for the store."""

    FULL = "full"
    """There is no room; the transaction is undone, and later ones may succeed."""
    LOCKED = "locked"
    """Another program holds the database; later transactions may succeed."""
    BROKEN = "broken"
    """What is on disk is unknown or damaged; nothing more may be written."""
    OTHER = "other"
    """A bug."""


def kind_of(error: sa.exc.DBAPIError) -> ErrorKind:
    """Return what an error means for the store."""
    code = getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code == sqlite3.SQLITE_FULL:
        return ErrorKind.FULL
    if code in _LOCKED:
        return ErrorKind.LOCKED
    return ErrorKind.BROKEN if code in _BROKEN else ErrorKind.OTHER


class Database:
    """An open database with the newest schema; made by `open_database`."""

    def __init__(self, path: Path, *, is_new: bool) -> None:
        self.name = str(path)
        """What messages call the database."""
        self.is_new = is_new
        """Whether this process has just created the database."""
        self.writer = open_engine(path)
        """The engine for transactions that write; one at a time."""
        self._path = path
        self._files: DatabaseFiles

    @contextlib.contextmanager
    def first_transaction(self) -> Iterator[sa.Connection]:
        """Run the first transaction; raise `StartError`, which says what to do, if the database cannot be read or written."""
        with explained(self._path), self.writer.begin() as connection:
            yield connection
        # The connection has read from the database and stays open in the pool, so both files exist now.
        self._files = DatabaseFiles(self._path)

    def open_reader(self, connections_max: int) -> sa.Engine:
        """Return an engine for transactions that read, each of one consistent state, over up to so many connections."""
        engine = sa.create_engine(
            "sqlite://",
            creator=lambda: connect(self._path, read_only=True),
            poolclass=sa.pool.QueuePool,
            pool_size=connections_max,
            max_overflow=0,
            hide_parameters=True,
        )

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN")

        return engine

    def check(self) -> None:
        """Raise `FileGoneError` if the database was removed, replaced or moved since the first transaction."""
        self._files.check()


@contextlib.contextmanager
def open_database(settings: SubscriptionSettings) -> Iterator[Database]:
    """Open the database for this process alone, create it if it is missing, and bring its schema up to date.

    Raises `StartError` if another process has the database open, or if it cannot be used.
    """
    path = database_path(settings.subscription_database_url, settings.data_dir, "subscription")
    refuse_other_layout(path)
    with sole_owner(path):
        is_new = not path.exists()
        migrate(path, MIGRATIONS)
        database = Database(path, is_new=is_new)
        try:
            yield database
        finally:
            database.writer.dispose()
