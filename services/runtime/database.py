"""Database: opens a service's SQLite file with durable commits, and brings its schema up to date.

Law: every connection uses WAL with synchronous=FULL and checks both. A database that cannot provide them is refused.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory

from services.runtime.database_files import DatabaseFiles, lock_file, named_database, open_lock, was_removed
from services.runtime.service_process import StartError

# STRICT tables came with this version.
SQLITE_VERSION_MIN = (3, 37, 0)
BUSY_TIMEOUT_MS = 5_000
# SQLite reports the second if there is no room for the index of a write-ahead log.
_NO_ROOM = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}
# Checking the structure of a database takes about 3 ms a MiB.
_LOOKED_THROUGH_BYTES_MAX = 64 * 1024 * 1024
# Each connection fills its own cache in time. Further pages are in the system's page cache, which is no process's resident memory.
_WRITING_CACHE_KIB = 8 * 1024
_READING_CACHE_KIB = 4 * 1024


def database_path(url: str, data_dir: Path, service: str) -> Path:
    """Return what `named_database` does, and create the directory. Raises `StartError` also for a directory that cannot be written."""
    path = named_database(url, data_dir, service)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot create {path.parent}: {error.strerror}; set HOOKTIDE_DATA_DIR to a directory that can be written"
        raise StartError(message) from error
    return path


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection in autocommit mode, for one thread at a time. Callers write BEGIN and COMMIT themselves.

    Raises `StartError` if the file is not a usable database.
    """
    with explained(path):
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
        configure(connection, read_only=read_only)
        return connection


def configure(connection: sqlite3.Connection, *, read_only: bool = False) -> None:
    """Set a connection's pragmas and check that its commits are durable."""
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        message = f"SQLite {sqlite3.sqlite_version} is too old; use a Python with SQLite 3.37 or newer"
        raise StartError(message)
    if not read_only:
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA cache_size = -{_READING_CACHE_KIB if read_only else _WRITING_CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or synchronous < 2:  # noqa: PLR2004 - 2 is FULL
        found = f"journal_mode={mode}, synchronous={synchronous}"
        message = f"the database cannot make commits durable here ({found}); move it from a network file system to a local disk"
        raise StartError(message)


def open_engine(path: Path) -> sa.Engine:
    """Return a SQLAlchemy engine over a file; its transactions begin with BEGIN IMMEDIATE."""
    # Errors are logged, and the parameters of a statement may be secret.
    engine = sa.create_engine("sqlite://", creator=lambda: connect(path), poolclass=sa.pool.QueuePool, pool_size=2, hide_parameters=True)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def migrate(path: Path, migrations: Path) -> None:
    """Bring a database's schema to the newest revision in `migrations`, one transaction for each step.

    Raises `StartError` if the file is foreign, is damaged, or was written by a newer version.
    """
    with explained(path):
        _refuse_damaged(path)
        config = Config()
        config.set_main_option("script_location", str(migrations).replace("%", "%%"))
        # This check comes before a connection is configured, since configuring would change a file that is not ours.
        _refuse_foreign(path, {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()})
        # Closing the only connection moves everything that an earlier process left in the write-ahead log into the file, and syncs it. If a
        # failed sync ended that process, the pages that are read back from its log may not be on disk yet.
        _make_private(path)
        connect(path).close()
        engine = open_engine(path)
        try:
            with engine.connect() as migrating:
                config.attributes["connection"] = migrating
                command.upgrade(config, "head")
        finally:
            engine.dispose()


def _make_private(path: Path) -> None:
    """Create a new file that only its owner can read, and so its journals too. If this fails, opening the file reports why."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _refuse_damaged(path: Path) -> None:
    """Check the structure of a database that is not too large. In a larger one, damage is found when a query meets it.

    A damaged file stays as it is, for whoever repairs it: a connection that only reads moves nothing out of the write-ahead log.
    """
    if not path.exists() or not 0 < path.stat().st_size <= _LOOKED_THROUGH_BYTES_MAX:
        return
    with _merely_reading(path) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        message = f"database disk image is malformed: {' '.join(found.split())}"
        raise sqlite3.DatabaseError(message)


def peek(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Return the rows of a query to a database of any version. No file is changed or made."""
    log = path.with_name(f"{path.name}-wal")
    # Immutable: without it, SQLite would make the files of a write-ahead log.
    options = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def _merely_reading(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """Return a read-only connection that does not change the file, not even its journal mode."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000))


def _refuse_foreign(path: Path, known: set[str]) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with _merely_reading(path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        heads = {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")} if "alembic_version" in tables else set()
    if tables - {"alembic_version"} and not heads:
        message = f"{path} is a database, but not of this service; choose another file, or move this one away"
        raise StartError(message)
    if {_family(head) for head in heads} - {_family(revision) for revision in known}:
        message = f"{path} is the database of another Hooktide service; give each service its own HOOKTIDE_*_DATABASE_URL"
        raise StartError(message)
    if heads - known:
        raise written_by_newer(path)


def written_by_newer(path: Path) -> StartError:
    """Return the error of a database whose schema is newer than this program."""
    message = f"{path} was written by a newer version of Hooktide; install that version, or restore a backup made before the upgrade"
    return StartError(message)


def _family(revision: str) -> str:
    """Return the prefix that all revisions of one service's schema share."""
    return revision.rstrip("0123456789")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors on opening into a `StartError` that says what to do."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, sa.exc.DBAPIError) as error:
        origin = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if getattr(origin, "sqlite_errorname", "") in _NO_ROOM:
            message = f"the disk is full, and {path} cannot be written; make room, and start again"
            raise StartError(message) from error
        cause = str(origin)
        advice = (
            "restore the file from a backup, or move it away to begin with an empty database"
            if "malformed" in cause or "not a database" in cause
            else "check that the file and its directory exist and can be written"
        )
        message = f"cannot open {path}: {cause}; {advice}"
        raise StartError(message) from error


def is_disk_full(error: sqlite3.Error) -> bool:
    """Return whether an error means a full disk, which can recover, and not a failing disk, which cannot."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes of a database's pages are in use."""
    (pages,), (free,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


@contextlib.contextmanager
def sole_owner(path: Path) -> Iterator[None]:
    """Hold the lock beside a database, for services that keep the file's content in memory.

    The system frees the lock however the process ends. Raises `StartError` if another process holds it, or if the database was removed
    while it was open and is still missing.
    """
    beside = lock_file(path)
    descriptor = open_lock(beside)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{path} is in use by another process; stop that process first"
            raise StartError(message) from None
        if was_removed(path, descriptor):
            message = (
                f"{path} was removed while a service had it open; put the file back, or remove {beside} to begin with an empty database"
            )
            raise StartError(message)
        yield
    finally:
        os.close(descriptor)


def vacuum_some(connection: sqlite3.Connection, pages_max: int = 1_000) -> int:
    """Give at most `pages_max` free pages back to the file system; return how many were given back.

    Call it within a transaction: each page is a statement of its own, since Python's driver ends the pragma after its first page.
    """
    (before,) = connection.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(before, pages_max)):
        connection.execute("PRAGMA incremental_vacuum(1)")
    (after,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(before - after)


def give_back_some(connection: sqlite3.Connection) -> int:
    """Give a bounded number of free pages back to the file system if more than a quarter of the file is free; return how many.

    Below a quarter, free pages are soon used again, and giving each of them back would move a used page.
    """
    (pages,), (free,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
    return vacuum_some(connection) if free * 4 > pages else 0


class WalCheckpoints:
    """Keeps the write-ahead log short: a thread of its own runs passive checkpoints, so that commits need not.

    A checkpoint runs after every few commits and so moves few pages. While its pages go to the disk, a commit waits, and the work
    behind that commit then arrives in a burst.
    Under steady writing a passive checkpoint never reaches the end of the log, so the log would only grow. Beyond a bound the writer
    itself finishes the little that is left and restarts the log. The log's file keeps its length, since writing over it costs less
    than growing it again.
    A vacuumed file becomes shorter on the disk only after a checkpoint of the whole write-ahead log: `shorten`.
    """

    _COMMITS_BETWEEN = 8
    _RESTART_BYTES = 64 * 1024 * 1024
    # The longest time for which the writer waits for a reader that blocks the restart, such as a backup. The restart is tried again later.
    _RESTART_WITHIN_MS = 20
    _SHORTEN_WITHIN_MS = 200
    _SHORTEN_AGAIN_S = 1.0

    def __init__(self, path: Path, writing: sqlite3.Connection) -> None:
        self._writing = writing
        writing.execute("PRAGMA wal_autocheckpoint = 0")
        # The first read creates the write-ahead log's file.
        writing.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._files = DatabaseFiles(path)
        self._connection = connect(path)
        self._connection.execute(f"PRAGMA busy_timeout = {self._SHORTEN_WITHIN_MS}")
        (page_bytes,) = writing.execute("PRAGMA page_size").fetchone()
        self._restart_pages = self._RESTART_BYTES // page_bytes
        self._is_long = False
        self._commits = 0
        self._wanted = threading.Event()
        self._shorten = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="wal-checkpoints", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after_commit(self) -> None:
        """Note a commit. The writer calls this outside of transactions, before it acknowledges the commit. Raises `FileGoneError`."""
        self._files.check()
        self._commits += 1
        if self._is_long:
            self._is_long = False
            self._restart()
        elif self._commits % self._COMMITS_BETWEEN == 0:
            self._wanted.set()

    def _restart(self) -> None:
        self._writing.execute(f"PRAGMA busy_timeout = {self._RESTART_WITHIN_MS}")
        try:
            self._writing.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except sqlite3.OperationalError as error:
            # If the disk is full, the pages stay in the write-ahead log, where they are just as safe.
            if not is_disk_full(error):
                raise
        finally:
            self._writing.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    def shorten(self) -> None:
        """Ask the thread to shrink the files soon, after pages were given back."""
        self._shorten = True
        self._wanted.set()

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            self._wanted.wait(self._SHORTEN_AGAIN_S if self._shorten else None)
            self._wanted.clear()
            if self._closing:
                return
            # A failure here loses nothing: the pages stay in the write-ahead log, and the writer meets the same disk error.
            with contextlib.suppress(sqlite3.OperationalError):
                ((_, pages, _),) = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self._is_long = pages > self._restart_pages
                if self._shorten:
                    ((busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    self._shorten = bool(busy)


def run_migrations() -> None:
    """Run alembic's migrations on the connection that `migrate` opened. Every env.py calls this."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
