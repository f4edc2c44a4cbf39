"""Database: opening a service's SQLite file so that a commit is a promise, and bringing its schema up to date.

Law: WAL with synchronous=FULL, asserted on every connection; a database that cannot give that is refused.
"""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory

from services.runtime.database_files import DatabaseFiles, lock_file, was_removed
from services.runtime.lifecycle import StartError

SQLITE_VERSION_MIN = (3, 35, 0)
BUSY_TIMEOUT_MS = 5_000
# Looking through a database takes about 3 ms a MiB.
_LOOKED_THROUGH_BYTES_MAX = 64 * 1024 * 1024
# Each connection fills its own in time; beyond it there is the system's page cache, which is nobody's resident memory.
_WRITING_CACHE_KIB = 8 * 1024
_READING_CACHE_KIB = 4 * 1024


def database_path(url: str, data_dir: Path, service: str) -> Path:
    """Return the SQLite file of a service: the one in `url` (``sqlite:///path``) or the default in the data directory.

    A link is followed to the file, beside which SQLite keeps its journal and we keep the lock. Creates the directory.
    Raises `StartError` for another engine or a directory that cannot be written.
    """
    if url and not url.startswith("sqlite:///"):
        message = f"HOOKTIDE_{service.upper()}_DATABASE_URL: only sqlite:///path is supported"
        raise StartError(message)
    named = url.removeprefix("sqlite:///")
    if url and not named:
        message = f"HOOKTIDE_{service.upper()}_DATABASE_URL: sqlite:/// lacks the file's path; write for example sqlite:////var/lib/x.db"
        raise StartError(message)
    if "?" in named or "@" in named:
        # Whatever stands there may be a password, and a path is shown in errors.
        message = f"HOOKTIDE_{service.upper()}_DATABASE_URL: sqlite:///path takes neither ?parameters nor user@host; leave them out"
        raise StartError(message)
    path = Path(named) if url else data_dir / f"{service}.db"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot create {path.parent}: {error.strerror}; choose a directory that can be written with HOOKTIDE_DATA_DIR"
        raise StartError(message) from error
    return path.resolve() if path.is_symlink() else path


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection in autocommit mode, usable from any one thread at a time; transactions are written out.

    Raises `StartError` where the file is no usable database.
    """
    with explained(path):
        uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
        configure(connection, read_only=read_only)
        return connection


def configure(connection: sqlite3.Connection, *, read_only: bool = False) -> None:
    """Set a connection's pragmas and assert that durability is what we promise."""
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        message = f"SQLite {sqlite3.sqlite_version} is too old; a Python with SQLite 3.35 or newer is needed"
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
        message = f"the database cannot give durable commits here ({found}): is it on a network file system?"
        raise StartError(message)


def open_engine(path: Path) -> sa.Engine:
    """Return a SQLAlchemy engine over a file, whose transactions begin with BEGIN IMMEDIATE."""
    # Errors are logged, and what was written may be nobody's to read.
    engine = sa.create_engine("sqlite://", creator=lambda: connect(path), poolclass=sa.pool.QueuePool, pool_size=2, hide_parameters=True)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def migrate(path: Path, migrations: Path) -> None:
    """Bring a database's schema to the newest revision in `migrations`, one transaction a step.

    Raises `StartError` where the file is foreign, damaged, or was written by a newer version.
    """
    with explained(path):
        _refuse_damaged(path)
        config = Config()
        config.set_main_option("script_location", str(migrations).replace("%", "%%"))
        # Before a connection is configured, which would change a file that is none of ours.
        _refuse_foreign(path, {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()})
        # Closing the only connection moves what an earlier process has left in the write-ahead log into the file and syncs that:
        # where a failed sync has ended that process, what is read back from its log may not be on disk.
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
    """Let a new file be its owner's alone, and so the journals beside it; why it cannot be made, opening it tells."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _refuse_damaged(path: Path) -> None:
    """Look through the structure of a database that is not too large; in a larger one damage is found as it is met.

    What is damaged is left as it is, for whoever is to mend it: a connection that only reads moves nothing out of the write-ahead log.
    """
    if not path.exists() or not 0 < path.stat().st_size <= _LOOKED_THROUGH_BYTES_MAX:
        return
    with _merely_reading(path) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        message = f"database disk image is malformed: {' '.join(found.split())}"
        raise sqlite3.DatabaseError(message)


def _merely_reading(path: Path) -> contextlib.closing[sqlite3.Connection]:
    """Return a connection that changes nothing about a file, not even its journal mode."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000))


def _refuse_foreign(path: Path, known: set[str]) -> None:
    if not path.exists() or path.stat().st_size == 0:
        return
    with _merely_reading(path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        heads = {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")} if "alembic_version" in tables else set()
    if tables - {"alembic_version"} and not heads:
        message = f"{path} is a database, but not one of this service; choose another file or move it away"
        raise StartError(message)
    if {_family(head) for head in heads} - {_family(revision) for revision in known}:
        message = f"{path} is the database of another service of Hooktide; check HOOKTIDE_*_DATABASE_URL, each service has its own"
        raise StartError(message)
    if heads - known:
        message = f"{path} was written by a newer version of Hooktide; install that version, or restore a backup made before the upgrade"
        raise StartError(message)


def _family(revision: str) -> str:
    """Return what the revisions of one service's schema begin with."""
    return revision.rstrip("0123456789")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors on opening into a `StartError` that says what to do."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, sa.exc.DBAPIError) as error:
        cause = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else str(error)
        advice = (
            "restore it from a backup, or move it away to begin anew"
            if "malformed" in cause or "not a database" in cause
            else "check that file and directory exist and can be written"
        )
        message = f"cannot open {path}: {cause}; {advice}"
        raise StartError(message) from error


def is_disk_full(error: sqlite3.Error) -> bool:
    """Say whether an error means that there is no room, which heals, and not that the disk fails, which does not."""
    return getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return how many bytes of a database's pages are in use."""
    (pages,), (free,), (size,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)


@contextlib.contextmanager
def sole_owner(path: Path) -> Iterator[None]:
    """Hold the lock beside a database, for services that keep in memory what stands in the file.

    The system frees it however the process ends. Raises `StartError` if another process holds it, or if the database was removed while
    it was open and is not there again.
    """
    beside = lock_file(path)
    try:
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        message = f"cannot write {beside}: {error.strerror}; choose a directory that can be written with HOOKTIDE_DATA_DIR"
        raise StartError(message) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{path} is in use by another process; stop that one first"
            raise StartError(message) from None
        if was_removed(path, descriptor):
            message = f"{path} was removed while a service had it open; put it back, or remove {beside} to begin without it"
            raise StartError(message)
        yield
    finally:
        os.close(descriptor)


def vacuum_some(connection: sqlite3.Connection, pages_max: int = 1_000) -> int:
    """Give free pages back to the file system, at most `pages_max`; return how many went.

    Call it within a transaction: each page is a statement of its own, since Python's driver ends the pragma after its first page.
    """
    (before,) = connection.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(before, pages_max)):
        connection.execute("PRAGMA incremental_vacuum(1)")
    (after,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(before - after)


def give_back_some(connection: sqlite3.Connection) -> int:
    """Give free pages back to the file system, a bounded number, while they are more than a quarter of the file.

    What is free below that is soon used again, and giving it back would move a used page for each. Returns how many went.
    """
    (pages,), (free,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count"))
    return vacuum_some(connection) if free * 4 > pages else 0


class WalCheckpoints:
    """Keeps the write-ahead log short without making commits wait: a thread of its own moves pages over.

    Often, and so little at a time: while its pages go to the disk, a commit waits, and what it holds up comes in a heap.
    Under steady writing such a passive checkpoint never reaches the end, so that the log would only
    grow; beyond a bound the writer itself finishes the little that is left and begins the log anew. Its file keeps its length, since
    to write over it costs less than to have it grow again.
    A file that was vacuumed becomes shorter on the disk only once its write-ahead log is moved over whole: `shorten`.
    """

    _COMMITS_BETWEEN = 8
    _RESTART_BYTES = 64 * 1024 * 1024
    # So little may the writer have to wait for a reader that is in the way, as a backup is; it is tried again.
    _RESTART_WITHIN_MS = 20
    _SHORTEN_WITHIN_MS = 200
    _SHORTEN_AGAIN_S = 1.0

    def __init__(self, path: Path, writing: sqlite3.Connection) -> None:
        self._writing = writing
        writing.execute("PRAGMA wal_autocheckpoint = 0")
        # The first read makes the write-ahead log's file.
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
        """Note a commit; called by the writer, outside of transactions, before it tells anybody. Raises `FileGoneError`."""
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
            # Without room, the pages stay in the write-ahead log, where they are as safe.
            if not is_disk_full(error):
                raise
        finally:
            self._writing.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

    def shorten(self) -> None:
        """Let the files shrink to what they hold, soon, after pages were given back."""
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
            # A failure here loses nothing: the pages stay in the write-ahead log, and the writer meets the same disk.
            with contextlib.suppress(sqlite3.OperationalError):
                ((_, pages, _),) = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self._is_long = pages > self._restart_pages
                if self._shorten:
                    ((busy, _, _),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    self._shorten = bool(busy)


def run_migrations() -> None:
    """Run alembic's migrations on the connection that `migrate` opened: the body of every env.py."""
    context.configure(connection=context.config.attributes["connection"], transactional_ddl=True, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
